"""One encoder per modality; nothing is shared between modalities (Liu et al. 2025, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nnunet_fedmepd.networks.blocks import BlockSettings, Stages, conv_stack


class ModalityEncoder(nn.Module):
    """Encodes the image of one modality at every scale.

    Args:
        settings: convolution, normalisation and nonlinearity.
        stages: widths, kernels and strides.
        n_convs: convolutions of each stage.
    """

    def __init__(self, settings: BlockSettings, stages: Stages, n_convs: Sequence[int]) -> None:
        super().__init__()
        widths = [1, *stages.features]
        self.stages = nn.ModuleList(
            conv_stack(settings, n_convs[s], widths[s], widths[s + 1], stages.kernel_sizes[s], stages.strides[s])
            for s in range(len(stages))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features of every scale, high to low resolution, from `image` (B, 1, *space)."""
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features
