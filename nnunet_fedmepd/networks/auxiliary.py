"""The auxiliary decoder Q: segments from each single modality, in training only (Liu et al. 2025, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.networks.blocks import BlockSettings, ConvBlock, Stages


class AuxiliaryDecoder(nn.Module):
    """A light U-Net decoder, shared by the encoders of one site, which never leaves the site.

    All modalities pass through it as one batch. Skips are added, not concatenated: it need not be good, it must
    teach every encoder to see the tumour by itself.

    Args:
        settings: convolution, normalisation and nonlinearity.
        stages: widths, kernels and strides of the encoders.
        n_heads: segmentation heads.
        scale: at which it segments; 0 is full resolution (published). The finer scales of the encoders then learn from
            the fused segmentation alone.
    """

    def __init__(self, settings: BlockSettings, stages: Stages, n_heads: int, scale: int = 0) -> None:
        super().__init__()
        if not 0 <= scale < len(stages):
            raise ConfigurationError(f"auxiliary_scale is {scale}; expected 0 to {len(stages) - 1}.")
        self.scale = scale
        widths, finer = stages.features, range(scale, len(stages) - 1)
        self.upsamplings = nn.ModuleList(
            settings.upsampling(widths[s + 1], widths[s], stages.strides[s + 1]) for s in finer
        )
        self.merges = nn.ModuleList(ConvBlock(settings, widths[s], widths[s], stages.kernel_sizes[s]) for s in finer)
        self.segmentation_head = settings.conv(widths[scale], n_heads)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, M, H, *space of the scale) from per-scale features (B, M, C, *space), high to low."""
        batch = features[0].shape[0]
        skips = [rearrange(f, "b m c ... -> (b m) c ...") for f in features[self.scale :]]
        decoded = skips[-1]
        for s in reversed(range(len(self.merges))):
            decoded = self.merges[s](self.upsamplings[s](decoded) + skips[s])
        return rearrange(self.segmentation_head(decoded), "(b m) h ... -> b m h ...", b=batch)
