"""Scores a folder of label maps, whoever predicted them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import numpy as np
import SimpleITK

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.metrics import dice


def mean_dice(
    references: Path, predictions: Path, regions: Mapping[str, tuple[int, ...]], file_ending: str = ".nii.gz"
) -> dict[str, float]:
    """Return region -> mean Dice over all predictions, each against the reference of the same name.

    A region that neither of them has counts 1, as everywhere in `metrics`.

    Args:
        references, predictions: folders of label maps.
        regions: name -> labels that make up the region.

    Raises:
        DatasetError: there is no prediction, or one without a reference, or of another shape.
    """
    files = sorted(predictions.glob(f"*{file_ending}"))
    if not files:
        raise DatasetError(
            "There is nothing to score", file=predictions, expected=f"*{file_ending}", found="no such file"
        )
    pairs = [_read_pair(references / file.name, file) for file in files]
    return {
        name: fmean(dice(np.isin(reference, labels), np.isin(prediction, labels)) for reference, prediction in pairs)
        for name, labels in regions.items()
    }


def _read_pair(reference: Path, prediction: Path) -> tuple[np.ndarray, np.ndarray]:
    if not reference.is_file():
        raise DatasetError(
            "A prediction has no reference segmentation", file=prediction, expected=reference, found="no such file"
        )
    actual, predicted = _read(reference), _read(prediction)
    if actual.shape != predicted.shape:
        raise DatasetError(
            "A prediction does not have the shape of its reference",
            file=prediction,
            expected=actual.shape,
            found=predicted.shape,
        )
    return actual, predicted


def _read(file: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
