"""A picture of predictions: per case the image, the reference and the prediction, in the slice through the tumour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.pictures import (
    add_label_legend,
    draw_image,
    draw_labels,
    find_brain_box,
    find_tumour_slice,
    save_png,
)

_PANEL_INCHES = 1.8
_COLUMNS = ("image", "reference", "prediction")


@dataclass(frozen=True)
class PredictedCase:
    """The files of one predicted case; label values are those of `BRATS_LABELS`."""

    title: str
    image: Path
    reference: Path
    prediction: Path


def draw_segmentations(cases: Sequence[PredictedCase], file: Path) -> Path:
    """Draw the cases, a row each, into the PNG `file` and return it.

    Raises:
        DatasetError: a file is missing, or the volumes of a case differ in shape.
    """
    from matplotlib.figure import Figure  # without pyplot: neither a display nor its global state is touched

    size = (_PANEL_INCHES * len(_COLUMNS), _PANEL_INCHES * 1.2 * len(cases) + 0.4)
    figure = Figure(figsize=size, layout="constrained", facecolor="black")
    rows = figure.subplots(len(cases), len(_COLUMNS), squeeze=False)
    for row, case in zip(rows, cases, strict=True):
        _draw_case(row, case)
    for panel, title in zip(rows[0], _COLUMNS, strict=True):
        panel.set_title(title, color="white", fontsize=10)
    add_label_legend(figure)
    save_png(figure, file)
    return file


def _draw_case(row: np.ndarray, case: PredictedCase) -> None:
    image, reference, prediction = (_read(file, case) for file in (case.image, case.reference, case.prediction))
    if not image.shape == reference.shape == prediction.shape:
        raise DatasetError(
            "The volumes of a case differ in shape",
            case=case.title,
            file=case.prediction,
            expected=f"image {image.shape}, reference {reference.shape}",
            found=prediction.shape,
        )
    shown = (find_tumour_slice(reference), *find_brain_box(image))
    for panel, labels in zip(row, (None, reference, prediction), strict=True):
        draw_image(panel, image[shown])
        if labels is not None:
            draw_labels(panel, labels[shown])
    row[0].set_ylabel(case.title, color="white", fontsize=8)


def _read(file: Path, case: PredictedCase) -> np.ndarray:
    if not file.is_file():
        raise DatasetError("A file to draw is missing", case=case.title, file=file)
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
