"""Localised adaptive calibration: cross-attention of voxels to anchors (Liu et al. 2025, section 3.3).

Legend: B batch, C channels, V voxels, L classes with background, K anchors a class, A = L*K anchors, H heads,
D width of a head.

Anchors are constants of the forward pass, so the layer needs neither queries nor values per voxel: q.k equals
x (Wq k), and the output projection of a value is a row of a table. Attention becomes two 1x1x1 convolutions, from C
to H*A scores and from H*A weights back to C, with the same numbers.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fedmepd.networks.pointwise import pointwise

CALIBRATION_MODES = ("replace", "residual", "standardized", "off")

# Liu et al. start the linear layers of the replacing form at this standard deviation.
PUBLISHED_INIT_STD = 1e-3


class AnchorCalibration(nn.Module):
    """Calibrates the fused features of one scale by the federation's anchors.

    Without valid anchors, or while anchors are kept but not used (at a lead), the layer is exactly the identity and
    costs nothing.

    Args:
        width: channels C of the fused features and of the anchors.
        n_classes: L, background included.
        n_anchors_per_class: K.
        n_heads: H.
        mode: `replace` puts the attention's result in place of the features (the published form), `residual`
            adds it to them, `standardized` does so too and attends by similarity (below), `off` never calibrates
            (anchors are still kept).
        head_width: D; None means C, the published full-width heads.
        dropout: on the attention weights, in training (published: 0.1).

    As published, attention stays close to uniform: anchors differ little beside what they have in common, so that the
    result is nearly a constant. `standardized` measures features and anchors from the anchors' mean, in units of their
    spread, channel by channel; query and key start as the same rotation, so that a voxel attends to anchors like itself
    from the start.

    Buffers:
        anchors (L, K, C), valid (L, K) bool, in_use () bool.
    """

    anchors: Tensor
    valid: Tensor
    in_use: Tensor

    def __init__(
        self,
        width: int,
        n_classes: int,
        n_anchors_per_class: int,
        n_heads: int,
        mode: str,
        head_width: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.mode, self.n_heads, self.dropout = mode, n_heads, dropout
        self.head_width = head_width or width
        if mode != "off":
            inner = n_heads * self.head_width
            self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
            self.out = nn.Linear(inner, width)
            self.reset_parameters()
        self.register_buffer("anchors", torch.zeros(n_classes, n_anchors_per_class, width))
        self.register_buffer("valid", torch.zeros(n_classes, n_anchors_per_class, dtype=torch.bool))
        self.register_buffer("in_use", torch.tensor(False))
        # Mirrors `in_use and valid.any()` on the host: a branch on a buffer would stall the GPU and break its graph.
        self._active = False
        self.register_load_state_dict_post_hook(lambda module, _: module._refresh_active())

    def reset_parameters(self) -> None:
        """Initialise the projections; a residual layer starts as the identity, a replacing one as published."""
        layers = (self.query, self.key, self.value, self.out)
        for layer in layers:
            if self.mode == "replace":
                nn.init.normal_(layer.weight, std=PUBLISHED_INIT_STD)
            else:
                nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.mode != "replace":
            nn.init.zeros_(self.out.weight)
        if self.mode == "standardized":
            for head in self.query.weight.unflatten(0, (self.n_heads, self.head_width)).unbind():
                nn.init.orthogonal_(head)
            self.key.load_state_dict(self.query.state_dict())

    @torch.no_grad()
    def set_anchors(self, anchors: Float[Tensor, "L K C"], valid: Bool[Tensor, "L K"], in_use: bool) -> None:
        """Copy anchors in place; `in_use=False` keeps them (a lead does) without calibrating by them."""
        self.anchors.copy_(anchors)
        self.valid.copy_(valid)
        self.in_use.fill_(in_use)
        self._refresh_active()

    def _refresh_active(self) -> None:
        self._active = self.mode != "off" and bool(self.in_use) and bool(self.valid.any())

    def forward(self, features: Float[Tensor, "B C *space"]) -> Float[Tensor, "B C *space"]:
        if not self._active:
            return features
        result = self._project(self.attention(features), self._value_table())
        if self.out.bias is not None:
            result = result + self.out.bias.to(result.dtype).view(-1, *[1] * (features.ndim - 2))
        return result if self.mode == "replace" else features + result

    def attention(self, features: Float[Tensor, "B C *space"]) -> Float[Tensor, "B H A *space"]:
        """Return each voxel's weights over the anchors, head by head; invalid anchors weigh 0."""
        table, bias = self._score_table()
        scores = pointwise(features, table.flatten(0, 1), bias.flatten()).unflatten(1, bias.shape)
        invalid = ~self.valid.flatten().view(-1, *[1] * (features.ndim - 2))
        weights = scores.masked_fill(invalid, torch.finfo(scores.dtype).min).softmax(2)
        return functional.dropout(weights, self.dropout, self.training)

    def channels(self) -> int:
        """Return how many feature maps the layer puts out in training."""
        return 0 if self.mode == "off" else 2 * self.n_heads * self.valid.numel() + self.anchors.shape[-1]

    def _score_table(self) -> tuple[Float[Tensor, "H A C"], Float[Tensor, "H A"]]:
        keys = self.key(self._compared_anchors()).unflatten(1, (self.n_heads, self.head_width))
        keys = keys * self.head_width**-0.5
        query = self.query.weight.unflatten(0, (self.n_heads, self.head_width))
        query_bias = self.query.bias.unflatten(0, (self.n_heads, self.head_width))
        if self.mode == "standardized":  # q.k of the standardised features, written for the features as they are
            middle, spread = self._origin_and_units()
            query = query / spread
            query_bias = query_bias - query @ middle
        return torch.einsum("ahd,hdc->hac", keys, query), torch.einsum("ahd,hd->ha", keys, query_bias)

    def _compared_anchors(self) -> Float[Tensor, "A C"]:
        anchors = self.anchors.flatten(0, 1)
        if self.mode != "standardized":
            return anchors
        middle, spread = self._origin_and_units()
        return (anchors - middle) / spread

    def _origin_and_units(self) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
        """Return the mean and the standard deviation of the valid anchors, 1 where they do not differ."""
        weights = self.valid.flatten()[:, None] / self.valid.sum().clamp(min=1)  # no indexing: it would stall a GPU
        middle = (weights * self.anchors.flatten(0, 1)).sum(0)
        variance = (weights * (self.anchors.flatten(0, 1) - middle).square()).sum(0)
        return middle, torch.where(variance > 0, variance, 1.0).sqrt()

    def _value_table(self) -> Float[Tensor, "C HA"]:
        values = self.value(self._compared_anchors()).unflatten(1, (self.n_heads, self.head_width))
        out = self.out.weight.unflatten(1, (self.n_heads, self.head_width))
        return torch.einsum("ahd,chd->cha", values, out).flatten(1)

    @staticmethod
    def _project(weights: Tensor, table: Tensor) -> Tensor:
        return pointwise(weights.flatten(1, 2), table, None)
