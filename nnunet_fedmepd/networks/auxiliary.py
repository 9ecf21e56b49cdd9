"""The auxiliary decoder Q: segments from each single modality, in training only (Liu et al. 2025, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn

from nnunet_fedmepd.networks.blocks import BlockSettings, ConvBlock, Stages


class AuxiliaryDecoder(nn.Module):
    """A light U-Net decoder, shared by the encoders of one site, which never leaves the site.

    All modalities pass through it as one batch. Skips are added, not concatenated: it need not be good, it must
    teach every encoder to see the tumour by itself.
    """

    def __init__(self, settings: BlockSettings, stages: Stages, n_heads: int) -> None:
        super().__init__()
        widths, finer = stages.features, range(len(stages) - 1)
        self.upsamplings = nn.ModuleList(
            settings.upsampling(widths[s + 1], widths[s], stages.strides[s + 1]) for s in finer
        )
        self.merges = nn.ModuleList(ConvBlock(settings, widths[s], widths[s], stages.kernel_sizes[s]) for s in finer)
        self.segmentation_head = settings.conv(widths[0], n_heads)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, M, H, *space) from per-scale features (B, M, C, *space), high to low resolution."""
        batch = features[0].shape[0]
        skips = [rearrange(f, "b m c ... -> (b m) c ...") for f in features]
        decoded = skips[-1]
        for s in reversed(range(len(self.merges))):
            decoded = self.merges[s](self.upsamplings[s](decoded) + skips[s])
        return rearrange(self.segmentation_head(decoded), "(b m) h ... -> b m h ...", b=batch)
