"""Region-aware fusion of the modalities present (Ding et al., ICCV 2021; Liu et al. 2025, section 3.1).

Legend: B batch, M owned modalities, N canonical modalities, C channels in, O channels out, L regions (classes with
background), V voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fedmepd.networks.blocks import BlockSettings, ConvBlock
from nnunet_fedmepd.networks.pointwise import pointwise


def region_probabilities(logits: Float[Tensor, "B H *space"], overlapping: bool) -> Float[Tensor, "B L *space"]:
    """Return a partition of every voxel into regions from segmentation logits.

    Classes (`overlapping=False`): softmax over the heads, which include the background; L = H. Overlapping regions
    (nnU-Net's region-based training, one sigmoid a head, no background): the heads plus, first, a background
    1 - max of them; L = H + 1.
    """
    if not overlapping:
        return logits.softmax(1)
    regions = logits.sigmoid()
    return torch.cat([1 - regions.amax(1, keepdim=True), regions], 1)


def pool_regions(
    features: Float[Tensor, "B MC V"], regions: Float[Tensor, "B L V"], epsilon: float = 1e-6
) -> Float[Tensor, "B L MC"]:
    """Return the mean of the features over each region: sum_v p_lv f_v / sum_v p_lv; near 0 for an empty region.

    The features come first in the product, so that their gradient lies in memory as they do: the transposed form makes
    every operation after it, down to the encoders, walk memory in strides.
    """
    weights = regions / (regions.sum(-1, keepdim=True) + epsilon)
    return torch.bmm(features, weights.transpose(1, 2)).transpose(1, 2)


def normalize_gates(logits: Float[Tensor, "B L M"], present: Bool[Tensor, "B M"]) -> Float[Tensor, "B L M"]:
    """Return softmax over the modalities present; absent ones get exactly 0, so that any subset sums to 1."""
    absent = ~present[:, None]
    lowest = torch.finfo(logits.dtype).min
    return logits.masked_fill(absent, lowest).softmax(-1).masked_fill(absent, 0.0)


def fuse_regions(
    features: Float[Tensor, "B MC V"],
    regions: Float[Tensor, "B L V"],
    gates: Float[Tensor, "B L M"],
    mixing: Float[Tensor, "O L C"],
) -> Float[Tensor, "B O V"]:
    """Return sum_l p_l * W_l (sum_m g_lm f_m), the region-aware mix of the modalities.

    Weighting by gates, concatenating the regions and mixing them by a 1x1x1 convolution are all linear in the
    features, so the gates are folded into the weights and one batched matrix product does the work; the tensor
    of shape (B, L, M, C, V) that the formula suggests never exists.
    """
    n_regions = regions.shape[1]
    weights = torch.einsum("blm,olc->blomc", gates, mixing)
    mixed = torch.bmm(rearrange(weights, "b l o m c -> b (l o) (m c)"), features)
    return (rearrange(mixed, "b (l o) v -> b l o v", l=n_regions) * regions[:, :, None]).sum(1)


class OwnedModalityConv(nn.Module):
    """A 1x1x1 convolution over the concatenated features of all canonical modalities, run on the owned ones only.

    The weight (O, N*C, 1, ...) is that of the whole federation; modalities a site does not own would contribute
    zero features, so their columns are left out of the product and get no gradient but zero.
    """

    owned: Tensor

    def __init__(self, settings: BlockSettings, owned: Sequence[int], n_canonical: int, width: int) -> None:
        super().__init__()
        conv = settings.conv(n_canonical * width, width, bias=settings.conv_bias)
        self.weight, self.bias = conv.weight, conv.bias
        self.n_canonical = n_canonical
        self.register_buffer("owned", torch.tensor(list(owned)), persistent=False)

    def forward(self, features: Float[Tensor, "B MC *space"]) -> Float[Tensor, "B O *space"]:
        columns = rearrange(self.weight, "o (n c) ... -> o n c (...)", n=self.n_canonical)
        columns = rearrange(columns.index_select(1, self.owned), "o m c 1 -> o (m c)")
        return pointwise(features, columns, self.bias)


class ModalityGates(nn.Module):
    """Per region, one weight for each modality, from the region-pooled features of all modalities.

    A two-layer perceptron a region, all regions at once as grouped 1-wide convolutions.
    """

    owned: Tensor

    def __init__(self, n_regions: int, owned: Sequence[int], n_canonical: int, width: int) -> None:
        super().__init__()
        self.n_regions, self.n_canonical, self.width = n_regions, n_canonical, width
        self.hidden = nn.Conv1d(n_regions * n_canonical * width, n_regions * width, 1, groups=n_regions)
        self.weigh = nn.Conv1d(n_regions * width, n_regions * n_canonical, 1, groups=n_regions)
        self.register_buffer("owned", torch.tensor(list(owned)), persistent=False)

    def forward(self, pooled: Float[Tensor, "B L MC"], present: Bool[Tensor, "B M"]) -> Float[Tensor, "B L M"]:
        pooled = rearrange(pooled, "b l (m c) -> b l m c", c=self.width)
        canonical = pooled.new_zeros(*pooled.shape[:2], self.n_canonical, self.width)
        canonical = canonical.index_copy(2, self.owned, pooled)
        hidden = functional.leaky_relu(self.hidden(rearrange(canonical, "b l n c -> b (l n c) 1")), 0.01)
        logits = rearrange(self.weigh(hidden), "b (l n) 1 -> b l n", l=self.n_regions)
        return normalize_gates(logits.index_select(2, self.owned), present)


class RegionAwareFusion(nn.Module):
    """Fuses the features of the modalities present at one scale; predicts the region map that guides it.

    Args:
        settings: convolution, normalisation and nonlinearity.
        width: channels C of each modality's features and of the result.
        owned: canonical indices of the owned modalities, in the order of the input channels.
        n_canonical: number N of canonical modalities.
        n_heads: segmentation heads of the region map.
        overlapping: heads are overlapping regions (sigmoid) instead of classes (softmax).
        has_coarser: whether features of a coarser scale come along.
    """

    def __init__(
        self,
        settings: BlockSettings,
        width: int,
        owned: Sequence[int],
        n_canonical: int,
        n_heads: int,
        overlapping: bool,
        has_coarser: bool,
    ) -> None:
        super().__init__()
        n_regions = n_heads + overlapping
        self.overlapping, self.n_regions = overlapping, n_regions
        self.shortcut = ConvBlock(
            settings, n_canonical * width, width, conv=OwnedModalityConv(settings, owned, n_canonical, width)
        )
        self.region_features = ConvBlock(settings, (1 + has_coarser) * width, width)
        self.region_head = settings.conv(width, n_heads)
        self.gates = ModalityGates(n_regions, owned, n_canonical, width)
        self.mix = ConvBlock(settings, n_regions * width, width)

    def forward(
        self,
        features: Float[Tensor, "B M C *space"],
        present: Bool[Tensor, "B M"],
        coarser: Float[Tensor, "B C *space"] | None,
    ) -> tuple[Float[Tensor, "B C *space"], Float[Tensor, "B H *space"]]:
        """Return the fused features and the logits of the region map.

        `features` hold zeros where a modality is absent; `coarser` are the decoder's features of the next coarser
        scale, upsampled. The region map steers the fusion but is taught by its own loss only.
        """
        concatenated = rearrange(features, "b m c ... -> b (m c) ...")
        shortcut = self.shortcut(concatenated)
        context = shortcut if coarser is None else torch.cat([shortcut, coarser], 1)
        logits = self.region_head(self.region_features(context))
        regions = region_probabilities(logits.detach(), self.overlapping)
        return shortcut + self._fuse(concatenated, regions, present), logits

    def _fuse(self, concatenated: Tensor, regions: Tensor, present: Tensor) -> Tensor:
        flat, regions = concatenated.flatten(2), regions.flatten(2)
        # Sums over millions of voxels overflow half precision.
        with torch.autocast(flat.device.type, enabled=False):
            precise = torch.promote_types(flat.dtype, torch.float32)
            pooled = pool_regions(flat.to(precise), regions.to(precise))
        gates = self.gates(pooled, present)
        weight, bias = self.mix.conv.weight, self.mix.conv.bias
        mixing = rearrange(weight, "o (l c) ... -> o l (c ...)", l=self.n_regions)
        fused = fuse_regions(flat, regions.to(flat.dtype), gates.to(flat.dtype), mixing.to(flat.dtype))
        if bias is not None:
            fused = fused + bias.to(fused.dtype)[:, None]
        return self.mix.after(fused.unflatten(2, concatenated.shape[2:]))
