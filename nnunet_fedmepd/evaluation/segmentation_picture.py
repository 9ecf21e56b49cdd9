"""A picture of predictions: per case image, reference and each model's prediction, in the slice through the tumour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.pictures import (
    draw_image,
    draw_labels,
    find_brain_box,
    find_tumour_slice,
    new_case_grid,
    save_png,
)

_PANEL_INCHES = 1.8


@dataclass(frozen=True)
class PredictedCase:
    """The files of one predicted case; label values are those of `BRATS_LABELS`, predictions go by their model."""

    title: str
    image: Path
    reference: Path
    predictions: Mapping[str, Path]


def draw_segmentations(cases: Sequence[PredictedCase], file: Path) -> Path:
    """Draw the cases, a row each, into the PNG `file` and return it; all have predictions of the same models.

    Raises:
        DatasetError: a file is missing, or the volumes of a case differ in shape.
    """
    columns = ("image", "reference", *cases[0].predictions)
    figure, rows = new_case_grid(len(cases), columns, _PANEL_INCHES)
    for row, case in zip(rows, cases, strict=True):
        _draw_case(row, case)
    save_png(figure, file)
    return file


def _draw_case(row: np.ndarray, case: PredictedCase) -> None:
    image, reference = _read(case.image, case), _read(case.reference, case)
    predictions = [_read(file, case) for file in case.predictions.values()]
    for file, labels in zip((case.reference, *case.predictions.values()), (reference, *predictions), strict=True):
        if labels.shape != image.shape:
            raise DatasetError(
                "The volumes of a case differ in shape",
                case=case.title,
                file=file,
                expected=f"that of its image, {image.shape}",
                found=labels.shape,
            )
    shown = (find_tumour_slice(reference), *find_brain_box(image))
    for panel in row:
        draw_image(panel, image[shown])
    for panel, labels in zip(row[1:], (reference, *predictions), strict=True):
        draw_labels(panel, labels[shown])
    row[0].set_ylabel(case.title, color="white", fontsize=8)


def _read(file: Path, case: PredictedCase) -> np.ndarray:
    if not file.is_file():
        raise DatasetError("A file to draw is missing", case=case.title, file=file)
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
