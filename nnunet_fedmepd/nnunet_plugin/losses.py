"""The training loss: fused segmentation, region maps, auxiliary decoder (Liu et al. 2025, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fedmepd.networks.fedmepd_net import TrainingOutput

Loss = Callable[[Tensor, Tensor], Tensor]
Strength = Callable[[], float]
_NO_LABEL = -100  # no voxel has it; torch's own


class FedMEPDLoss(nn.Module):
    """loss(fused) + sum_s region_weights[s] loss(region map s) + auxiliary_weight * mean_m loss(auxiliary of m).

    The last mean is over the scans that were made: an absent one teaches the auxiliary decoder nothing.

    Args:
        loss: takes logits (B, H, *space) and nnU-Net's target (B, T, *space).
        region_weights: one per scale, high to low resolution; 0 leaves a scale out.
        auxiliary_weight: of the mean over the samples' scans.
    """

    def __init__(self, loss: Loss, region_weights: Sequence[float], auxiliary_weight: float) -> None:
        super().__init__()
        self.loss = loss
        self.region_weights, self.auxiliary_weight = tuple(region_weights), auxiliary_weight

    def forward(self, output: TrainingOutput, targets: Sequence[Tensor], present: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            output: of the network.
            targets: one a scale, from high to low resolution.
            present: (B, M) bool on the host, the scans that were made; None: all. Asking the device would make every
                step wait for it.
        """
        total = self.loss(output.segmentation, targets[0])
        for weight, region_map, target in zip(self.region_weights, output.region_maps, targets, strict=True):
            if weight:
                total = total + weight * self.loss(region_map, target)
        if output.auxiliary is not None and self.auxiliary_weight:
            total = total + self.auxiliary_weight * self._auxiliary(output.auxiliary, targets, present)
        return total

    def _auxiliary(self, logits: Tensor, targets: Sequence[Tensor], present: Tensor | None) -> Tensor:
        target = next(target for target in targets if target.shape[2:] == logits.shape[3:])
        n_scans = logits.shape[1]
        logits = logits.flatten(0, 1)
        if present is None:
            return self.loss(logits, target.repeat_interleave(n_scans, 0))
        made = present.flatten().nonzero()[:, 0].to(logits.device, non_blocking=True)
        return self.loss(logits.index_select(0, made), target.index_select(0, made // n_scans))


def region_scale_weights(n_scales: int) -> list[float]:
    """Return the weight of each scale's region map: halved at every scale, as in nnU-Net's deep supervision, sum 1.

    nnU-Net leaves out the two lowest scales. Here every region map steers the fusion of its scale, so none may be
    left untaught.
    """
    weights = [2.0**-scale for scale in range(n_scales)]
    return [weight / sum(weights) for weight in weights]


def published_strength() -> float:
    """Return the exponent of class weights that are used as they are."""
    return 1.0


class FrequencyWeightedCE(nn.Module):
    """Cross entropy in which a voxel weighs one minus its class's frequency in the batch (Liu et al. 2025).

    Nearly all voxels are background. Unweighted, rare classes are left unlearned for hundreds of steps.

    Args:
        ignore_label: label whose voxels count for nothing, or None.
        strength: tells the exponent of the weights at the moment: 1 as published, 0 for none.
    """

    def __init__(self, ignore_label: int | None = None, strength: Strength = published_strength) -> None:
        super().__init__()
        self.ignore_label = _NO_LABEL if ignore_label is None else ignore_label
        self.strength = strength

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits (B, L, *space) against labels (B, *space)."""
        labels = labels.long()
        counts = torch.stack([(labels == label).sum() for label in range(logits.shape[1])])
        n_voxels = counts.sum().clamp_min(1)
        # A class that is everywhere keeps the weight of a voxel, which fades as all others do; 0 would stay 0.
        weights = ((1 - counts / n_voxels).clamp_min(1 / n_voxels) ** self.strength()).to(logits.dtype)
        loss = functional.cross_entropy(logits, labels, weights, ignore_index=self.ignore_label, reduction="sum")
        return loss / n_voxels


class FrequencyWeightedBCE(nn.Module):
    """The same for overlapping regions: in each, a voxel weighs one minus the frequency of its side, in or out.

    Args:
        reduction: `mean`, or `none` where nnU-Net leaves out ignored voxels afterwards; in the frequencies they count
            as outside.
        strength: tells the exponent of the weights at the moment, as in `FrequencyWeightedCE`.
    """

    def __init__(self, reduction: str = "mean", strength: Strength = published_strength) -> None:
        super().__init__()
        self.reduction = reduction
        self.strength = strength

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, H, *space) against regions (B, H, *space), 0 or 1."""
        frequency = target.mean((0, *range(2, target.ndim)), keepdim=True)
        one_voxel = target.shape[1] / target.numel()
        weights = torch.where(target > 0, 1 - frequency, frequency).clamp_min(one_voxel) ** self.strength()
        return functional.binary_cross_entropy_with_logits(logits, target, weights, reduction=self.reduction)


class FrequencyWeightedDiceCE(nn.Module):
    """Soft Dice plus `FrequencyWeightedCE`: the published loss.

    Args:
        ignore_label: label whose voxels count for nothing, or None.
    """

    def __init__(self, ignore_label: int | None = None, smooth: float = 1e-5) -> None:
        super().__init__()
        self.cross_entropy, self.smooth = FrequencyWeightedCE(ignore_label), smooth

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, L, *space) against labels (B, 1, *space)."""
        return self.cross_entropy(logits, target[:, 0]) + self._dice(logits, target[:, 0].long())

    def _dice(self, logits: Tensor, labels: Tensor) -> Tensor:
        counted = labels != self.cross_entropy.ignore_label  # all of them without such a label
        masks = functional.one_hot(labels.where(counted, 0), logits.shape[1]).movedim(-1, 1) * counted[:, None]
        probabilities = logits.softmax(1) * counted[:, None]
        axes = (0, *range(2, logits.ndim))
        overlap, size = (probabilities * masks).sum(axes), probabilities.sum(axes) + masks.sum(axes)
        return 1 - ((2 * overlap + self.smooth) / (size + self.smooth)).mean()
