"""What all pictures share: figures, grey images, coloured label maps, a legend, and saving."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from nnunet_fedmepd.modalities import BRATS_LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FOREGROUND = tuple(label for label in BRATS_LABELS.values() if label)
# By label; Okabe and Ito's, which those who see red and green alike can tell apart. 0 is background.
_COLOURS = ("#999999", "#D55E00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#E69F00", "#0072B2")


def new_figure(width: float, height: float, **settings: Any) -> Figure:
    """Return a figure in inches; neither a display nor pyplot's global state is touched."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", **settings)


def label_colour(label: int) -> str:
    """Return the colour of a label; they repeat after seven."""
    return _COLOURS[0] if label == 0 else _COLOURS[1 + (label - 1) % (len(_COLOURS) - 1)]


def draw_image(panel: Axes, image: Shaped[np.ndarray, "Y X"]) -> None:
    """Draw a slice in grey, from its 1st to its 99.5th percentile; 0 is background."""
    brain = image[image > 0]
    darkest, brightest = np.percentile(brain, (1, 99.5)) if brain.size else (0, 1)
    panel.imshow(np.where(image > 0, image, darkest), cmap="gray", vmin=darkest, vmax=brightest)
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)


def draw_labels(panel: Axes, labels: Shaped[np.ndarray, "Y X"], drawn: Collection[int] = _FOREGROUND) -> None:
    """Draw a slice of labels, translucent, over what is there; values not in `drawn` (BraTS's by default) are not."""
    from matplotlib.colors import to_rgba

    coloured = np.zeros((*labels.shape, 4))
    for label in drawn:
        coloured[labels == label] = to_rgba(label_colour(label), alpha=0.6)
    panel.imshow(coloured, interpolation="nearest", aspect="equal")


def new_case_grid(
    n_cases: int, columns: Sequence[str], panel_inches: float
) -> tuple[Figure, Shaped[np.ndarray, "R C"]]:
    """Return a black figure and its panels, a row a case under titled columns; below them the colours of labels."""
    figure = new_figure(panel_inches * len(columns), panel_inches * 1.2 * n_cases + 0.4, facecolor="black")
    panels = figure.subplots(n_cases, len(columns), squeeze=False)
    for panel, title in zip(panels[0], columns, strict=True):
        panel.set_title(title, color="white", fontsize=10)
    _add_label_legend(figure)
    return figure, panels


def _add_label_legend(figure: Figure) -> None:
    """Say below the panels which colour is which of `BRATS_LABELS`."""
    from matplotlib.patches import Patch

    names = {label: name.replace("_", " ") for name, label in BRATS_LABELS.items()}
    handles = [Patch(color=label_colour(label), label=names[label]) for label in _FOREGROUND]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), labelcolor="white", frameon=False)


def find_tumour_slice(labels: Shaped[np.ndarray, "Z Y X"]) -> int:
    """Return the axial slice through the tumour's centre of mass; the middle one if there is no tumour."""
    z = np.nonzero(labels)[0]
    return round(z.mean()) if z.size else labels.shape[0] // 2


def find_brain_box(image: Shaped[np.ndarray, "Z Y X"]) -> tuple[slice, slice]:
    """Return the Y and X extent of what is not 0 in any axial slice, and a margin of a voxel."""
    _, y, x = np.nonzero(image)
    if not y.size:
        return slice(None), slice(None)
    return slice(max(0, y.min() - 1), y.max() + 2), slice(max(0, x.min() - 1), x.max() + 2)


def save_png(figure: Figure, file: Path) -> None:
    """Save a picture atomically, making its folder where needed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.partial")
    figure.savefig(temporary, dpi=130, format="png")
    os.replace(temporary, file)
