"""The fusion decoder: fuses the modalities at every scale, coarse to fine (Liu et al. 2025, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnunet_fedmepd.networks.blocks import BlockSettings, conv_stack
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
        features_per_stage, kernel_sizes, strides: per stage of the encoders, high to low resolution.
        n_conv_per_stage: per stage but the coarsest, which takes the entry of its finer neighbour.
        owned: canonical indices of the owned modalities, in the order of the input channels.
        n_canonical: number of canonical modalities.
        n_heads: segmentation heads.
        overlapping: heads are overlapping regions (sigmoid) instead of classes (softmax).
    """

    def __init__(
        self,
        settings: BlockSettings,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_conv_per_stage: Sequence[int],
        owned: Sequence[int],
        n_canonical: int,
        n_heads: int,
        overlapping: bool,
    ) -> None:
        super().__init__()
        # nnU-Net switches multi-scale outputs on and off through this attribute.
        self.deep_supervision = False
        n_stages = len(features_per_stage)
        self._widths, self._n_heads, self._n_regions = list(features_per_stage), n_heads, n_heads + overlapping
        n_convs = [*n_conv_per_stage[: n_stages - 1], *n_conv_per_stage[-1:]] if n_stages > 1 else [1]
        self._n_convs = n_convs
        self.fusions = nn.ModuleList()
        self.merges = nn.ModuleList()
        self.upsamplings = nn.ModuleList()
        for s, width in enumerate(features_per_stage):
            has_coarser = s + 1 < n_stages
            self.fusions.append(
                RegionAwareFusion(settings, width, owned, n_canonical, n_heads, overlapping, has_coarser)
            )
            self.merges.append(conv_stack(settings, n_convs[s], (1 + has_coarser) * width, width, kernel_sizes[s]))
            if has_coarser:
                self.upsamplings.append(settings.upsampling(features_per_stage[s + 1], width, strides[s + 1]))
        self.segmentation_head = settings.conv(features_per_stage[0], n_heads)

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
