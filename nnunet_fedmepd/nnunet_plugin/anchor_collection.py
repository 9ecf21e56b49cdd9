"""Collects a lead's anchors while it trains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_fedmepd.maths.anchors import AnchorState, average_by_case, class_masks, pool_by_class, update_anchors


class AnchorCollector:
    """Pools fused features under the labels, patch by patch, and turns them into anchors once an epoch.

    Pooled sums stay on the device until the epoch ends, so that collecting never stalls a training step.

    Args:
        n_classes: L, background included.
        overlapping: whether targets are overlapping regions.
        ignore_label: of the targets, or None.
        n_anchors_per_class: K.
        momentum: weight of the old anchor in the moving average.
        seed: of the clustering.
    """

    def __init__(
        self,
        n_classes: int,
        overlapping: bool,
        ignore_label: int | None,
        n_anchors_per_class: int,
        momentum: float,
        seed: int,
    ) -> None:
        self.n_classes, self.overlapping, self.ignore_label = n_classes, overlapping, ignore_label
        self.n_anchors_per_class, self.momentum, self.seed = n_anchors_per_class, momentum, seed
        self.state: AnchorState | None = None
        self._keys: list[str] = []
        self._sums: list[list[Tensor]] = []
        self._counts: list[list[Tensor]] = []

    @torch.no_grad()
    def collect(self, keys: Sequence[str], fused: Sequence[Tensor], target: Tensor, complete: Tensor) -> None:
        """Pool one batch.

        Args:
            keys: case of each sample.
            fused: per scale (B, C, *space), high to low resolution.
            target: nnU-Net's target at full resolution (B, T, *space).
            complete: (B,) bool, samples with every modality; the others do not count.
        """
        masks = class_masks(target, self.n_classes, self.overlapping, self.ignore_label)
        masks = masks * complete.view(-1, *[1] * (masks.ndim - 1))
        pooled = [pool_by_class(features, masks) for features in fused]
        self._keys.extend(str(key) for key in keys)  # nnU-Net's loader gives numpy's
        self._sums.append([sums for sums, _ in pooled])
        self._counts.append([counts for _, counts in pooled])

    def finish_epoch(self) -> AnchorState | None:
        """Update and return the anchors; None while nothing was ever collected."""
        if self._keys:
            sums = [torch.cat(scale).cpu() for scale in zip(*self._sums, strict=True)]
            counts = [torch.cat(scale).cpu() for scale in zip(*self._counts, strict=True)]
            observed = average_by_case(self._keys, sums, counts)
            self.state = update_anchors(self.state, observed, self.n_anchors_per_class, self.momentum, self.seed)
        self._keys, self._sums, self._counts = [], [], []
        return self.state
