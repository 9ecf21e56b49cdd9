"""Predicted components that are too small to be believed.

False components of a region cost little Dice, but much HD95 and lesion-wise Dice; where the reference lacks the region,
a single voxel makes Dice 0 and none makes it 1. Entries to BraTS drop small components for that reason (Isensee et al.,
nnU-Net for Brain Tumor Segmentation, 2020: small enhancing tumours). Here what is small is chosen on validation cases,
region by region in their order: a region that others lie in takes them with it, so their Dice counts, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.metrics import components, dice_of_counts, voxel_ml
from nnunet_fedmepd.federation.storage import write_atomically

_BACKGROUND = 0
_DIGITS = 9


@dataclass(frozen=True)
class Components:
    """What one case's Dice of R regions depends on when the n components of one of them are dropped.

    Attributes:
        ml: volume of each component.
        voxels: per region: in the reference and predicted, predicted, in the reference.
        changes: per region and component: what its loss adds to the first two.
    """

    ml: Float[np.ndarray, " n"]
    voxels: Int[np.ndarray, "R 3"]
    changes: Int[np.ndarray, "R 2 n"]

    def dice(self, limit_ml: float) -> float:
        """Return the mean Dice of all regions without the components that are smaller than a limit.

        A region of which nothing is left on either side has Dice 1.
        """
        changed = self.voxels.copy()
        changed[:, :2] += self.changes[:, :, self.ml < limit_ml].sum(2)
        return float(np.mean([dice_of_counts(*(int(count) for count in counts)) for counts in changed]))


def find_components(
    reference: Integer[np.ndarray, "X Y Z"],
    prediction: Integer[np.ndarray, "X Y Z"],
    spacing_mm: Sequence[float],
    regions: Mapping[str, tuple[int, ...]],
    name: str,
    scored: Bool[np.ndarray, "X Y Z"] | None = None,
) -> Components:
    """Return the components of a predicted region, 26 neighbours each, and what all regions lose with them.

    Args:
        reference, prediction: label maps.
        spacing_mm: of the three axes.
        regions: name -> labels that make it up.
        name: the region whose components are looked for.
        scored: where somebody annotated; None is everywhere.
    """
    numbers, n_components = components(np.isin(prediction, regions[name]))
    ml = np.bincount(numbers.ravel(), minlength=n_components + 1)[1:] * voxel_ml(spacing_mm)
    counted = np.ones(prediction.shape, bool) if scored is None else scored
    without = np.where(numbers > 0, _label_around(regions[name], regions), prediction)
    voxels, changes = [], []
    for labels in regions.values():
        actual, before, after = (np.isin(of, labels) & counted for of in (reference, prediction, without))
        voxels.append([int(mask.sum()) for mask in (actual & before, before, actual)])
        changes.append(
            [
                np.bincount(numbers[after & mask], minlength=n_components + 1)[1:]
                - np.bincount(numbers[before & mask], minlength=n_components + 1)[1:]
                for mask in (actual, counted)
            ]
        )
    return Components(ml, np.array(voxels), np.array(changes))


def choose_limit(cases: Sequence[Components]) -> float:
    """Return the millilitres below which a component is dropped; 0 drops none.

    It is the limit whose mean gain in Dice (of all regions) over the cases, less the standard error of that mean, is
    largest: a limit that owes its gain to one case is not chosen. Each lies in the geometric middle between the largest
    component that it drops and the smallest that it keeps; of equally good ones the smallest is taken, and one that
    keeps none never. The rule is this project's own.

    Args:
        cases: a region's components in validation cases; fewer than two choose nothing.
    """
    if len(cases) < 2:
        return 0.0
    volumes = np.unique(np.concatenate([case.ml for case in cases]))
    limits = [0.0, *np.sqrt(volumes[:-1] * volumes[1:]).tolist()]
    dice = np.array([[case.dice(limit) for case in cases] for limit in limits])
    gains = dice - dice[0]
    certain = gains.mean(1) - gains.std(1, ddof=1) / math.sqrt(len(cases))
    return limits[int(np.argmax(certain.round(_DIGITS)))]  # a gain in one case alone is certain by 0 but for rounding


def drop_small_components(
    labels: Integer[np.ndarray, "X Y Z"],
    spacing_mm: Sequence[float],
    regions: Mapping[str, tuple[int, ...]],
    limits_ml: Mapping[str, float],
) -> Integer[np.ndarray, "X Y Z"]:
    """Return a label map without the components of regions that are smaller than the region's limit.

    Voxels of a dropped component become what else the smallest region around it consists of, its lowest label, or
    background: enhancing tumour becomes necrotic core, tumour core becomes edema.

    Args:
        labels: predicted.
        spacing_mm: of the three axes.
        regions: name -> labels that make it up.
        limits_ml: name -> limit; a region without one is kept.
    """
    kept = labels.copy()
    for name, own in regions.items():
        if limit := limits_ml.get(name, 0.0):
            numbers, _ = components(np.isin(kept, own))
            small = np.bincount(numbers.ravel()) * voxel_ml(spacing_mm) < limit
            small[0] = False
            kept[small[numbers]] = _label_around(own, regions)
    return kept


def write_limits(file: Path, limits_ml: Mapping[str, float]) -> None:
    """Write limits, atomically.

    Raises:
        StateFileError: it cannot be written.
    """
    write_atomically(file, json.dumps({"limits_ml": limits_ml}, indent=2).encode())


def read_limits(file: Path) -> dict[str, float]:
    """Return the limits that `write_limits` wrote.

    Raises:
        DatasetError: there are none, or the file holds something else.
    """
    remedy = "`fedmepd evaluate RUN --drop-small` chooses the limits on validation cases and writes the file"
    if not file.is_file():
        raise DatasetError("There are no limits yet", file=file, remedy=remedy)
    try:
        limits = json.loads(file.read_text("utf-8"))["limits_ml"]
        return {str(region): float(limit) for region, limit in limits.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DatasetError(
            "This file holds no limits", file=file, expected='{"limits_ml": {REGION: MILLILITRES}}', remedy=remedy
        ) from None


def describe_limits(limits_ml: Mapping[str, float]) -> str:
    """Return what is dropped, in words."""
    dropped = [f"{region} below {limit:.2g} ml" for region, limit in limits_ml.items() if limit]
    return f"dropped: components of {', '.join(dropped)}" if dropped else "nothing is dropped: no limit helps enough"


def _label_around(own: tuple[int, ...], regions: Mapping[str, tuple[int, ...]]) -> int:
    around = [sorted(set(labels) - set(own)) for labels in regions.values() if set(labels) > set(own)]
    return min(around, key=len)[0] if around else _BACKGROUND
