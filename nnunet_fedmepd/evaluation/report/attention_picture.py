"""What the voxels of a slice attend to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnunet_fedmepd.evaluation.report.blocks import Picture, photograph
from nnunet_fedmepd.evaluation.report.record import SliceAttention
from nnunet_fedmepd.pictures import draw_image, draw_labels, label_colour, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_PANEL_INCHES = 1.55


def draw_attention(seen: SliceAttention, class_names: Sequence[str], labels: Collection[int]) -> Picture:
    """Draw a slice, its labels, the class it attends to most, and the entropy; below, the attention to each class."""
    n_columns = max(4, len(class_names))
    figure = new_figure(_PANEL_INCHES * n_columns + 0.4, _PANEL_INCHES * 2 + 0.5)
    above, below = figure.subplots(2, n_columns)
    for panel in (*above, *below):
        panel.set_axis_off()
    _draw_slice(above[0], seen.modality, seen)
    _draw_slice(above[1], "reference", seen)
    draw_labels(above[1], seen.labels, labels)
    _draw_strongest(above[2], seen.shares.argmax(0))
    entropy = _draw_map(above[-1], "entropy", seen.entropy, "cividis", 1.0)
    largest = float(seen.shares.max())
    maps = [
        _draw_map(panel, name, share, "viridis", largest)
        for panel, name, share in zip(below, class_names, seen.shares, strict=False)
    ]
    for image, panel in ((entropy, above[-1]), (maps[-1], below[-1])):
        figure.colorbar(image, ax=panel, fraction=0.05, pad=0.03).ax.tick_params(labelsize=6)
    return photograph(
        figure,
        f"Site {seen.site}, case {seen.case}: attention of the voxels of a slice to the anchors of each class",
        f"Site {seen.site}, case {seen.case}: mean entropy of the slice {seen.entropy.mean():.3f} of uniform",
    )


def _draw_slice(panel: Axes, title: str, seen: SliceAttention) -> None:
    panel.set_axis_on()
    draw_image(panel, seen.image - seen.image.min())  # preprocessed: the background is the lowest value
    panel.set_title(title, fontsize=8)


def _draw_strongest(panel: Axes, classes: np.ndarray) -> None:
    """Draw which class gets the most attention; grey is the background."""
    from matplotlib.colors import to_rgb

    coloured = np.zeros((*classes.shape, 3))
    for label in np.unique(classes):
        coloured[classes == label] = to_rgb(label_colour(int(label)))
    panel.set_axis_on()
    panel.imshow(coloured, interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    panel.set_title("most attended", fontsize=8)


def _draw_map(panel: Axes, title: str, values: np.ndarray, colours: str, largest: float) -> AxesImage:
    panel.set_axis_on()
    panel.set(xticks=[], yticks=[])
    panel.set_title(title, fontsize=8)
    return panel.imshow(values, cmap=colours, vmin=0, vmax=largest)
