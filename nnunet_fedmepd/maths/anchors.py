"""Anchors: class means of fused features, clustered over cases and followed over rounds (Liu et al. 2025, section 3.3).

Legend: B batch, C channels, L classes with background, R overlapping regions, N cases, K anchors a class, S scales.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

# Liu et al.: a weight of 0.999 over 1,000 rounds.
PUBLISHED_MOMENTUM = 0.999
PUBLISHED_ROUNDS = 1000


@dataclass(frozen=True)
class CaseMeans:
    """Masked averages of the fused features of one training epoch, case by case.

    Attributes:
        cases: N case identifiers.
        means: per scale, high to low resolution: (N, L, C of the scale); meaningless where not `seen`.
        seen: (N, L) bool, whether the class occurred in any patch of the case.
    """

    cases: tuple[str, ...]
    means: tuple[Tensor, ...]
    seen: Tensor


@dataclass(frozen=True)
class AnchorState:
    """The anchors and which case feeds which.

    Attributes:
        anchors: per scale (L, K, C of the scale).
        valid: (L, K) bool, the same at every scale.
        membership: case -> for each class the index of its anchor, -1 where the class was never seen.
    """

    anchors: tuple[Tensor, ...]
    valid: Tensor
    membership: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def class_masks(
    target: Shaped[Tensor, "B T *space"], n_classes: int, overlapping: bool, ignore_label: int | None = None
) -> Float[Tensor, "B L *space"]:
    """Return one mask a class from nnU-Net's target; ignored voxels belong to no class.

    Args:
        target: labels with T = 1; or, with `overlapping`, R binary regions and, where there is an ignore label, one
            more channel that marks the ignored voxels.
        n_classes: L, background included. With `overlapping`, class 0 is what no region covers.
    """
    if not overlapping:
        labels = torch.arange(n_classes, device=target.device).view(1, -1, *[1] * (target.ndim - 2))
        return (target == labels).float()
    regions = target[:, : n_classes - 1].float()
    masks = torch.cat([1 - regions.amax(1, keepdim=True), regions], 1)
    return masks if ignore_label is None else masks * (1 - target[:, -1:].float())


def pool_by_class(
    features: Float[Tensor, "B C *small"], masks: Float[Tensor, "B L *large"]
) -> tuple[Float[Tensor, "B L C"], Float[Tensor, "B L"]]:
    """Return the sum of the features under each mask, and the mask's size, both in voxels of the features.

    Masks are averaged down to the resolution of the features, so that a small structure keeps its share of a coarse
    voxel instead of vanishing.
    """
    pool: Callable[..., Tensor] = (
        functional.adaptive_avg_pool3d if features.ndim == 5 else functional.adaptive_avg_pool2d
    )
    weights = pool(masks, tuple(features.shape[2:])).flatten(2)
    sums = torch.bmm(weights, features.float().flatten(2).transpose(1, 2))
    return sums, weights.sum(-1)


def average_by_case(
    keys: Sequence[str], sums: Sequence[Float[Tensor, "P L _"]], counts: Sequence[Float[Tensor, "P L"]]
) -> CaseMeans:
    """Return the per-case means of P pooled patches: summed and counted per class first, divided last.

    Args:
        keys: case of each patch.
        sums, counts: per scale, as `pool_by_class` returns them.
    """
    cases = tuple(sorted(set(keys)))
    row = torch.tensor([cases.index(key) for key in keys], dtype=torch.long)

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(len(cases), *values.shape[1:]).index_add_(0, row, values)

    totals = [total(count) for count in counts]
    means = [
        total(s) / count.clamp_min(torch.finfo(s.dtype).tiny)[..., None] for s, count in zip(sums, totals, strict=True)
    ]
    seen = torch.stack([count > 0 for count in totals]).all(0)
    return CaseMeans(cases, tuple(means), seen)


def momentum_for(n_rounds: int) -> float:
    """Return the moving-average weight whose half-life is the published share (69 %) of a run of `n_rounds`."""
    return float(PUBLISHED_MOMENTUM ** (PUBLISHED_ROUNDS / max(n_rounds, 1)))


def update_anchors(
    state: AnchorState | None, observed: CaseMeans, n_anchors_per_class: int, momentum: float, seed: int = 0
) -> AnchorState:
    """Return the anchors after a round.

    The first round clusters the cases by k-means, class by class, on their vectors of the coarsest scale. A case's
    membership is then frozen and decides at every scale: anchor <- w * anchor + (1 - w) * mean of the members
    seen this round. A case first seen later opens a new anchor while its class has fewer than K, else it joins the
    nearest one. An anchor none of whose members was seen stays as it is.

    Args:
        state: the anchors so far, None in the first round.
        observed: this round's case means.
        n_anchors_per_class: K.
        momentum: w in [0, 1].
        seed: of the clustering.
    """
    membership = {case: list(m) for case, m in (state.membership if state else {}).items()}
    n_classes = observed.seen.shape[1]
    for case in observed.cases:
        membership.setdefault(case, [-1] * n_classes)
    valid = state.valid.clone() if state else torch.zeros(n_classes, n_anchors_per_class, dtype=torch.bool)
    anchors = (
        [a.clone() for a in state.anchors]
        if state
        else [torch.zeros(n_classes, n_anchors_per_class, m.shape[2], dtype=m.dtype) for m in observed.means]
    )
    for label in range(n_classes):
        rows = [i for i in range(len(observed.cases)) if observed.seen[i, label]]
        new = [i for i in rows if membership[observed.cases[i]][label] < 0]
        joined = _assign(observed.means[-1][new, label], anchors[-1][label], valid[label], seed)
        for i, anchor in zip(new, joined, strict=True):
            membership[observed.cases[i]][label] = anchor
        groups = [[i for i in rows if membership[observed.cases[i]][label] == k] for k in range(n_anchors_per_class)]
        for k in (k for k, members in enumerate(groups) if members):
            for scale, means in enumerate(observed.means):
                mean = means[groups[k], label].mean(0)
                old = anchors[scale][label, k]
                anchors[scale][label, k] = momentum * old + (1 - momentum) * mean if valid[label, k] else mean
            valid[label, k] = True
    return AnchorState(tuple(anchors), valid, {case: tuple(m) for case, m in membership.items() if max(m) >= 0})


def _assign(
    vectors: Float[Tensor, "N C"], anchors: Float[Tensor, "K C"], valid: Bool[Tensor, " K"], seed: int
) -> list[int]:
    """Return the anchor that each new vector joins; a class without anchors is clustered."""
    if not len(vectors):
        return []
    if not valid.any():
        return cluster(vectors, len(anchors), seed).tolist()
    free = [k for k in range(len(anchors)) if not valid[k]]
    opened = free[: len(vectors)]
    distance = torch.cdist(vectors[len(opened) :], anchors).masked_fill(~valid, torch.inf)
    return opened + distance.argmin(1).tolist()


def cluster(vectors: Float[Tensor, "N C"], n_clusters: int, seed: int) -> Int[Tensor, " N"]:
    """Return the k-means cluster of each vector, numbered by first appearance; never more clusters than vectors."""
    distinct = len(np.unique(vectors.numpy(), axis=0))
    kmeans = KMeans(min(n_clusters, distinct), n_init=10, random_state=seed)
    return _number_by_appearance(kmeans.fit_predict(vectors.double().numpy()).tolist())


def _number_by_appearance(labels: Iterable[int]) -> Tensor:
    order: dict[int, int] = {}
    return torch.tensor([order.setdefault(label, len(order)) for label in labels], dtype=torch.long)
