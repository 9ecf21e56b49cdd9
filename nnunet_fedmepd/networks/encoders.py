"""One encoder per modality; nothing is shared between modalities (Liu et al. 2025, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nnunet_fedmepd.networks.blocks import BlockSettings, conv_stack


class ModalityEncoder(nn.Module):
    """Encodes the image of one modality at every scale.

    Args:
        settings: convolution, normalisation and nonlinearity.
        features_per_stage, kernel_sizes, strides, n_conv_per_stage: one entry per stage, as nnU-Net plans them.
    """

    def __init__(
        self,
        settings: BlockSettings,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_conv_per_stage: Sequence[int],
    ) -> None:
        super().__init__()
        widths = [1, *features_per_stage]
        self.stages = nn.ModuleList(
            conv_stack(settings, n_conv_per_stage[s], widths[s], widths[s + 1], kernel_sizes[s], strides[s])
            for s in range(len(features_per_stage))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features of every scale, high to low resolution, from `image` (B, 1, *space)."""
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features
