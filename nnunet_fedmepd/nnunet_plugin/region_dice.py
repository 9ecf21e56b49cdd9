"""Dice of BraTS regions, computed by nnU-Net's own metric."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_fedmepd.errors import DatasetError


def region_dice(
    references: Path, predictions: Path, regions: Mapping[str, tuple[int, ...]], file_ending: str = ".nii.gz"
) -> dict[str, dict[str, float]]:
    """Return case -> region -> Dice of every prediction against the reference of the same name.

    A region that neither of them has gives NaN, nnU-Net's convention: such a case says nothing about the region.

    Args:
        references, predictions: folders of label maps.
        regions: name -> labels that make up the region.

    Raises:
        DatasetError: there is no prediction, or one without a reference.
    """
    files = sorted(predictions.glob(f"*{file_ending}"))
    if not files:
        raise DatasetError(
            "There is nothing to score", file=predictions, expected=f"*{file_ending}", found="no such file"
        )
    return {file.name.removesuffix(file_ending): _score(references / file.name, file, regions) for file in files}


def _score(reference: Path, prediction: Path, regions: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    if not reference.is_file():
        raise DatasetError(
            "A prediction has no reference segmentation", file=prediction, expected=reference, found="no such file"
        )
    metrics = compute_metrics(str(reference), str(prediction), SimpleITKIO(), list(regions.values()))["metrics"]
    return {name: float(metrics[labels]["Dice"]) for name, labels in regions.items()}
