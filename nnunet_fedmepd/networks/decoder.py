"""The fusion decoder: fuses the modalities at every scale, coarse to fine (Liu et al. 2025, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnunet_fedmepd.networks.blocks import BlockSettings, Stages, conv_stack
from nnunet_fedmepd.networks.fusion import RegionAwareFusion


class DecoderOutput(NamedTuple):
    """What the decoder makes of one batch; lists run from high to low resolution."""

    segmentation: Tensor  # (B, H, *space) logits
    region_maps: list[Tensor]  # (B, H, *space of the scale) logits
    fused: list[Tensor]  # (B, C, *space of the scale), before calibration


class FusionDecoder(nn.Module):
    """Decoder over all canonical modalities, of which the owned ones are run.

    Its parameters have the same names and shapes at every site, whatever modalities the site owns.

    Args:
        settings: convolution, normalisation and nonlinearity.
        stages: widths, kernels and strides of the encoders.
        n_convs: convolutions that decode each scale but the coarsest, which takes the last entry.
        owned: canonical indices of the owned modalities, in the order of the input channels.
        n_canonical: number of canonical modalities.
        n_heads: segmentation heads.
        overlapping: heads are overlapping regions (sigmoid) instead of classes (softmax).
    """

    def __init__(
        self,
        settings: BlockSettings,
        stages: Stages,
        n_convs: Sequence[int],
        owned: Sequence[int],
        n_canonical: int,
        n_heads: int,
        overlapping: bool,
    ) -> None:
        super().__init__()
        # nnU-Net switches multi-scale outputs on and off through this attribute.
        self.deep_supervision = False
        self._widths, self._n_heads, self._n_regions = list(stages.features), n_heads, n_heads + overlapping
        self._n_convs = [*n_convs[: len(stages) - 1], *n_convs[-1:]] if len(stages) > 1 else [1]
        self.fusions = nn.ModuleList()
        self.merges = nn.ModuleList()
        self.upsamplings = nn.ModuleList()
        for s, width in enumerate(stages.features):
            has_coarser = s + 1 < len(stages)
            self.fusions.append(
                RegionAwareFusion(settings, width, owned, n_canonical, n_heads, overlapping, has_coarser)
            )
            merged = (1 + has_coarser) * width
            self.merges.append(conv_stack(settings, self._n_convs[s], merged, width, stages.kernel_sizes[s]))
            if has_coarser:
                self.upsamplings.append(settings.upsampling(stages.features[s + 1], width, stages.strides[s + 1]))
        self.segmentation_head = settings.conv(stages.features[0], n_heads)

    def forward(self, features: Sequence[Tensor], present: Tensor, calibrations: nn.ModuleList) -> DecoderOutput:
        """Return segmentation, region maps and fused features.

        Args:
            features: per scale, high to low resolution: (B, M, C, *space), zeros where a modality is absent.
            present: (B, M) bool, which modalities a case has.
            calibrations: one a scale; applied to the fused features before they are decoded.
        """
        region_maps: list[Tensor] = []
        fused_features: list[Tensor] = []
        coarser: Tensor | None = None
        decoded = features[-1]
        for s in reversed(range(len(self.fusions))):
            fused, logits = self.fusions[s](features[s], present, coarser)
            calibrated = calibrations[s](fused)
            decoded = self.merges[s](calibrated if coarser is None else torch.cat([coarser, calibrated], 1))
            coarser = self.upsamplings[s - 1](decoded) if s > 0 else None
            region_maps.insert(0, logits)
            fused_features.insert(0, fused)
        return DecoderOutput(self.segmentation_head(decoded), region_maps, fused_features)

    def channels_at_scale(self, scale: int) -> int:
        """Return how many feature maps one scale puts out in training."""
        width, n_regions, n_heads = self._widths[scale], self._n_regions, self._n_heads
        fusion = width * (3 + n_regions) + n_heads
        upsampled = width if scale + 1 < len(self._widths) else 0
        return fusion + upsampled + width * self._n_convs[scale]
