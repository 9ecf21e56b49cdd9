"""The training loss: fused segmentation, region maps, auxiliary decoder (Liu et al. 2025, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fedmepd.networks.fedmepd_net import TrainingOutput

Loss = Callable[[Tensor, Tensor], Tensor]


class FedMEPDLoss(nn.Module):
    """loss(fused) + sum_s region_weights[s] loss(region map s) + auxiliary_weight * mean_m loss(auxiliary of m).

    Args:
        loss: takes logits (B, H, *space) and nnU-Net's target (B, T, *space).
        region_weights: one per scale, high to low resolution; 0 leaves a scale out.
        auxiliary_weight: of the mean over the owned modalities.
    """

    def __init__(self, loss: Loss, region_weights: Sequence[float], auxiliary_weight: float) -> None:
        super().__init__()
        self.loss = loss
        self.region_weights, self.auxiliary_weight = tuple(region_weights), auxiliary_weight

    def forward(self, output: TrainingOutput, targets: Sequence[Tensor]) -> Tensor:
        """Return the loss; `targets` run from high to low resolution, one a scale."""
        total = self.loss(output.segmentation, targets[0])
        for weight, region_map, target in zip(self.region_weights, output.region_maps, targets, strict=True):
            if weight:
                total = total + weight * self.loss(region_map, target)
        if output.auxiliary is not None and self.auxiliary_weight:
            total = total + self.auxiliary_weight * self._auxiliary(output.auxiliary, targets)
        return total

    def _auxiliary(self, logits: Tensor, targets: Sequence[Tensor]) -> Tensor:
        target = next(target for target in targets if target.shape[2:] == logits.shape[3:])
        return self.loss(logits.flatten(0, 1), target.repeat_interleave(logits.shape[1], 0))


def region_scale_weights(n_scales: int) -> list[float]:
    """Return the weight of each scale's region map: halved at every scale, as in nnU-Net's deep supervision, sum 1.

    nnU-Net leaves out the two lowest scales. Here every region map steers the fusion of its scale, so none may be
    left untaught.
    """
    weights = [2.0**-scale for scale in range(n_scales)]
    return [weight / sum(weights) for weight in weights]


class FrequencyWeightedDiceCE(nn.Module):
    """Soft Dice plus cross entropy with class weights 1 - frequency in the batch: the published loss.

    Args:
        ignore_label: label whose voxels count for nothing, or None.
    """

    def __init__(self, ignore_label: int | None = None, smooth: float = 1e-5) -> None:
        super().__init__()
        self.ignore_label, self.smooth = ignore_label, smooth

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, L, *space) against labels (B, 1, *space)."""
        labels = target[:, 0].long()
        counted = (
            torch.ones_like(labels, dtype=torch.bool) if self.ignore_label is None else labels != self.ignore_label
        )
        labels = labels.where(counted, 0)
        masks = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1) * counted[:, None]
        return self._cross_entropy(logits, masks, counted) + self._dice(logits, masks, counted)

    def _cross_entropy(self, logits: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        n_voxels = counted.sum().clamp_min(1)
        weights = 1 - masks.sum((0, *range(2, masks.ndim))) / n_voxels
        per_class = (logits.log_softmax(1) * masks).sum((0, *range(2, masks.ndim)))
        return -(weights * per_class).sum() / n_voxels

    def _dice(self, logits: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        probabilities = logits.softmax(1) * counted[:, None]
        axes = (0, *range(2, logits.ndim))
        overlap, size = (probabilities * masks).sum(axes), probabilities.sum(axes) + masks.sum(axes)
        return 1 - ((2 * overlap + self.smooth) / (size + self.smooth)).mean()
