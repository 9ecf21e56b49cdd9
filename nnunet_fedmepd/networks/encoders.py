"""The encoder of one modality; nothing is shared between modalities (Liu et al. 2025, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nnunet_fedmepd.networks.blocks import BlockSettings, Stages, conv_stack


class ModalityEncoder(nn.Module):
    """Encodes the image of one modality, or of several stacked ones, at every scale.

    Args:
        settings: convolution, normalisation and nonlinearity.
        stages: widths, kernels and strides.
        n_convs: convolutions of each stage.
        n_images: channels of the input.
    """

    def __init__(self, settings: BlockSettings, stages: Stages, n_convs: Sequence[int], n_images: int = 1) -> None:
        super().__init__()
        widths = [n_images, *stages.features]
        self.stages = nn.ModuleList(
            conv_stack(settings, n_convs[s], widths[s], widths[s + 1], stages.kernel_sizes[s], stages.strides[s])
            for s in range(len(stages))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features of every scale, high to low resolution, from `image` (B, n_images, *space)."""
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features
