"""The best, the median and the worst case of a site, in three planes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.report.blocks import Picture, photograph
from nnunet_fedmepd.evaluation.report.record import CaseImages
from nnunet_fedmepd.pictures import draw_image, draw_labels, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLANES = ("axial", "coronal", "sagittal")
_PANEL_INCHES = 1.45


def typical_cases(dice: Mapping[str, float]) -> dict[str, str]:
    """Return best, median and worst -> case, fewer where there are fewer than three cases."""
    ordered = sorted(dice, key=lambda case: (-dice[case], case))
    if len(ordered) < 3:
        return dict(zip(("best", "worst"), ordered, strict=False)) if len(ordered) > 1 else {"only": ordered[0]}
    return {"best": ordered[0], "median": ordered[len(ordered) // 2], "worst": ordered[-1]}


def draw_case(files: CaseImages, case: str, title: str, labels: Collection[int]) -> Picture:
    """Draw reference (above) and prediction (below) over the image, in the planes through the tumour's centre.

    Args:
        files: of the case.
        case: its name.
        title: its caption.
        labels: values that are drawn.

    Raises:
        DatasetError: the volumes do not have one shape.
    """
    volumes = [SimpleITK.ReadImage(str(file)) for file in (files.image, files.reference, files.prediction)]
    image, reference, prediction = map(SimpleITK.GetArrayFromImage, volumes)
    if not image.shape == reference.shape == prediction.shape:
        raise DatasetError(
            "The volumes of a case differ in shape",
            case=case,
            file=files.prediction,
            expected=f"that of its image, {image.shape}",
            found=f"reference {reference.shape}, prediction {prediction.shape}",
        )
    spacing_mm = volumes[0].GetSpacing()[::-1]
    centre, box = _tumour_centre(reference, prediction), _brain_box(image)
    side_mm = max((end - start) * step for (start, end), step in zip(box, spacing_mm, strict=True))
    figure = new_figure(_PANEL_INCHES * len(_PLANES), _PANEL_INCHES * 2 + 0.3, facecolor="black")
    rows = figure.subplots(2, len(_PLANES))
    for axis, plane in enumerate(_PLANES):
        shown = tuple(centre[i] if i == axis else slice(*box[i]) for i in range(3))
        steps_mm = [spacing_mm[i] for i in range(3) if i != axis]
        for row, segmentation in enumerate((reference, prediction)):
            panel = rows[row, axis]
            draw_image(panel, _upright(image[shown], axis))
            draw_labels(panel, _upright(segmentation[shown], axis), labels)
            _make_square(panel, segmentation[shown].shape, steps_mm, side_mm)
        rows[0, axis].set_title(plane, color="white", fontsize=8)
    for panel, name in zip(rows[:, 0], ("reference", "prediction"), strict=True):
        panel.set_ylabel(name, color="white", fontsize=8)
    return photograph(figure, f"Case {case}: reference and prediction in three planes", title)


def _make_square(panel: Axes, shape: Sequence[int], steps_mm: Sequence[float], side_mm: float) -> None:
    """Show a square of `side_mm` around the middle of a plane, so that all planes have one scale."""
    height, width = (side_mm / step for step in steps_mm)
    middle_y, middle_x = ((n - 1) / 2 for n in shape)
    panel.set_aspect(steps_mm[0] / steps_mm[1])
    panel.set_facecolor("black")
    panel.set(xlim=(middle_x - width / 2, middle_x + width / 2), ylim=(middle_y + height / 2, middle_y - height / 2))


def _upright(plane: np.ndarray, axis: int) -> np.ndarray:
    """Return a plane with the head up: rows run from the feet, but in the axial plane from the front."""
    return plane if axis == 0 else plane[::-1]


def _tumour_centre(reference: np.ndarray, prediction: np.ndarray) -> tuple[int, ...]:
    """Return the voxel nearest to the centre of the tumour, or of what was predicted where there is none."""
    for labels in (reference, prediction):
        voxels = np.argwhere(labels > 0)
        if voxels.size:
            nearest = np.linalg.norm(voxels - voxels.mean(0), axis=1).argmin()
            return tuple(int(i) for i in voxels[nearest])
    return tuple(n // 2 for n in reference.shape)


def _brain_box(image: np.ndarray) -> list[tuple[int, int]]:
    """Return start and end, along each axis, of what is not 0, and a margin of a voxel."""
    inside = np.argwhere(image != 0)
    if not inside.size:
        return [(0, n) for n in image.shape]
    low, high = np.maximum(inside.min(0) - 1, 0), np.minimum(inside.max(0) + 2, image.shape)
    return [(int(start), int(end)) for start, end in zip(low, high, strict=True)]
