"""Predicted regions that are too small to be believed.

Where a reference lacks a region, one predicted voxel makes its Dice 0 and none makes it 1. nnU-Net's entry to BraTS
2020 drops small enhancing tumours for that reason (Isensee et al., nnU-Net for Brain Tumor Segmentation); here the
limit is chosen on validation cases, for every region.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.tables import CaseScore
from nnunet_fedmepd.federation.storage import write_atomically

_MM3_PER_ML = 1000.0
_BACKGROUND = 0


def choose_limits(scores: Iterable[CaseScore]) -> dict[str, float]:
    """Return region -> millilitres: a smaller prediction counts as none; 0 drops nothing.

    It is the limit with the best mean Dice over all cases. Of equally good ones it drops fewest predictions, and it
    lies in the geometric middle between the largest that it drops and the smallest that it keeps. A limit that would
    keep none is never chosen.

    Args:
        scores: of validation cases.
    """
    by_region: dict[str, list[CaseScore]] = {}
    for score in scores:
        by_region.setdefault(score.region, []).append(score)
    return {region: _choose(own) for region, own in by_region.items()}


def drop_small_regions(
    labels: Integer[np.ndarray, "X Y Z"],
    spacing_mm: Sequence[float],
    regions: Mapping[str, tuple[int, ...]],
    limits_ml: Mapping[str, float],
) -> Integer[np.ndarray, "X Y Z"]:
    """Return a label map without the regions that are smaller than their limit.

    Voxels of a dropped region become what else the smallest region around it consists of, its lowest label, or
    background: enhancing tumour becomes necrotic core, tumour core becomes edema.

    Args:
        labels: predicted.
        spacing_mm: of the three axes.
        regions: name -> labels that make it up.
        limits_ml: name -> limit; a region without one is kept.
    """
    kept, voxel_ml = labels.copy(), math.prod(spacing_mm) / _MM3_PER_ML
    for name, own in regions.items():
        mask = np.isin(kept, own)
        if mask.sum() * voxel_ml < limits_ml.get(name, 0.0):
            kept[mask] = _label_around(own, regions)
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
    dropped = [f"{region} of less than {limit:.2g} ml" for region, limit in limits_ml.items() if limit]
    return f"counted as none: {', '.join(dropped)}" if dropped else "nothing is dropped: validation cases gain nothing"


def _choose(scores: Sequence[CaseScore]) -> float:
    predicted = sorted((score for score in scores if score.prediction_ml > 0), key=lambda score: score.prediction_ml)
    best_gain, best_limit, gain = 0.0, 0.0, 0.0
    for last, following in pairwise(predicted):
        gain += float(last.reference_ml == 0) - last.dice
        if gain > best_gain and last.prediction_ml < following.prediction_ml:
            best_gain, best_limit = gain, math.sqrt(last.prediction_ml * following.prediction_ml)
    return best_limit


def _label_around(own: tuple[int, ...], regions: Mapping[str, tuple[int, ...]]) -> int:
    around = [sorted(set(labels) - set(own)) for labels in regions.values() if set(labels) > set(own)]
    return min(around, key=len)[0] if around else _BACKGROUND
