"""Dice, HD95 and lesion-wise Dice of a region, by the conventions of BraTS.

Empty regions (`CONVENTIONS` says it in a table's caption):

    neither reference nor prediction has the region    Dice 1, lesion-wise Dice 1, HD95 0
    only one of them has it                            Dice 0, lesion-wise Dice 0, HD95 the diagonal of the image

The diagonal is rounded up to whole millimetres: 374 mm for the 240x240x155 mm of BraTS, which is the penalty there, and
a penalty of the same meaning for any other volume.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer
from scipy import ndimage

CONVENTIONS = (
    "A region in neither reference nor prediction: Dice 1, HD95 0; in only one of them: Dice 0, HD95 the image's "
    "diagonal (374 mm in BraTS). Lesion-wise Dice as in BraTS 2023: missed lesions and false positives count 0."
)
# BraTS 2023 and later, adult glioma: lesions grow by this before they are told apart, so that those up to twice as far
# from each other are one; reference lesions that are not larger do not count.
LESION_GAP_MM = 3.0
SMALLEST_LESION_MM3 = 50.0
_MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class RegionScore:
    """The scores of one region.

    Attributes:
        dice, lesion_dice: 0 to 1.
        hd95_mm: Hausdorff distance, 95th percentile.
        reference_ml, prediction_ml: volumes.
    """

    dice: float
    hd95_mm: float
    lesion_dice: float
    reference_ml: float
    prediction_ml: float


def score_regions(
    reference: Integer[np.ndarray, "X Y Z"],
    prediction: Integer[np.ndarray, "X Y Z"],
    spacing_mm: Sequence[float],
    regions: Mapping[str, tuple[int, ...]],
    ignore_label: int | None = None,
) -> dict[str, RegionScore]:
    """Return region -> scores of a predicted label map.

    Args:
        reference, prediction: label maps; a 2D image has one axis of length 1.
        spacing_mm: of the three axes.
        regions: name -> labels that make it up.
        ignore_label: where the reference has it, nothing is scored.
    """
    scored = np.ones(reference.shape, bool) if ignore_label is None else reference != ignore_label
    return {
        name: score_region(np.isin(reference, labels) & scored, np.isin(prediction, labels) & scored, spacing_mm)
        for name, labels in regions.items()
    }


def score_region(
    reference: Bool[np.ndarray, "X Y Z"], prediction: Bool[np.ndarray, "X Y Z"], spacing_mm: Sequence[float]
) -> RegionScore:
    """Return the scores of one region, given as masks."""
    volumes = [float(mask.sum()) * voxel_ml(spacing_mm) for mask in (reference, prediction)]
    penalty = diagonal_mm(reference.shape, spacing_mm)
    box = _box(reference | prediction, margin=_gap_in_voxels(spacing_mm) + 1)
    reference, prediction = reference[box], prediction[box]
    return RegionScore(
        dice(reference, prediction),
        hd95_mm(reference, prediction, spacing_mm, penalty),
        lesion_dice(reference, prediction, spacing_mm),
        *volumes,
    )


def dice(reference: Bool[np.ndarray, "X Y Z"], prediction: Bool[np.ndarray, "X Y Z"]) -> float:
    """Return 2 |A and B| / (|A| + |B|); 1 if both are empty."""
    return dice_of_counts(*(int(mask.sum()) for mask in (reference & prediction, prediction, reference)))


def dice_of_counts(overlap: int, prediction: int, reference: int) -> float:
    """Return 2 |A and B| / (|A| + |B|) from numbers of voxels; 1 if both are empty."""
    total = prediction + reference
    return 2.0 * float(overlap) / float(total) if total else 1.0


def components(mask: Bool[np.ndarray, "X Y Z"]) -> tuple[Int[np.ndarray, "X Y Z"], int]:
    """Return a map with the number of the component that a voxel is in (26 neighbours), 0 outside; and how many."""
    numbers, n_components = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    return numbers, n_components


def voxel_ml(spacing_mm: Sequence[float]) -> float:
    """Return the volume of a voxel."""
    return math.prod(spacing_mm) / _MM3_PER_ML


def hd95_mm(
    reference: Bool[np.ndarray, "X Y Z"],
    prediction: Bool[np.ndarray, "X Y Z"],
    spacing_mm: Sequence[float],
    penalty_mm: float,
) -> float:
    """Return the larger of the two directed 95th percentiles of distances between surface voxels.

    MONAI computes it. Both empty: 0; one empty: `penalty_mm`.
    """
    if not (reference.any() and prediction.any()):
        return penalty_mm if reference.any() or prediction.any() else 0.0
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance  # takes seconds to import

    # In a 2D image every voxel would be surface along the axis of length 1.
    axes = [axis for axis, size in enumerate(reference.shape) if size > 1] or [0]
    actual, predicted = (
        torch.from_numpy(m.reshape([m.shape[a] for a in axes]))[None, None] for m in (reference, prediction)
    )
    spacing = [float(spacing_mm[axis]) for axis in axes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of MONAI about itself
        distance = compute_hausdorff_distance(
            predicted, actual, include_background=True, percentile=95, spacing=spacing
        )
    return float(distance)


def lesion_dice(
    reference: Bool[np.ndarray, "X Y Z"], prediction: Bool[np.ndarray, "X Y Z"], spacing_mm: Sequence[float]
) -> float:
    """Return the mean Dice over lesions, as BraTS 2023 defines it (Moawad et al., arXiv 2306.00838).

    Reference lesions whose dilations touch are one. A lesion is compared with all predicted components (26 neighbours)
    that touch its dilation. Predicted components that touch none are false positives, each a lesion of Dice 0.
    Reference lesions of 50 mm^3 and less do not count. With nothing left to count it is 1.
    """
    ball = ndimage.generate_binary_structure(reference.ndim, 2)
    grown = ndimage.binary_dilation(reference, ball, iterations=_gap_in_voxels(spacing_mm))
    zones, n_lesions = components(grown)
    predicted, n_predicted = components(prediction)
    scores, hit = [], set[int]()
    for number in range(1, n_lesions + 1):
        zone = zones == number
        touching = np.setdiff1d(predicted[zone], [0])
        hit.update(touching.tolist())
        lesion = reference & zone
        if lesion.sum() * math.prod(spacing_mm) > SMALLEST_LESION_MM3:
            scores.append(dice(lesion, np.isin(predicted, touching)))
    scores += [0.0] * (n_predicted - len(hit))
    return float(np.mean(scores)) if scores else 1.0


def diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Return the diagonal of an image, rounded up to whole millimetres."""
    return float(math.ceil(math.hypot(*(size * step for size, step in zip(shape, spacing_mm, strict=True)))))


def _gap_in_voxels(spacing_mm: Sequence[float]) -> int:
    """Return the dilation in voxels: 3 at BraTS's 1 mm, at least 1."""
    return max(1, round(LESION_GAP_MM / math.prod(spacing_mm) ** (1 / len(spacing_mm))))


def _box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """Return the bounding box of a mask, grown by some voxels; an empty mask gives a corner."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return tuple(slice(0, 1) for _ in mask.shape)
    return tuple(slice(max(0, side.start - margin), side.stop + margin) for side in found[0])
