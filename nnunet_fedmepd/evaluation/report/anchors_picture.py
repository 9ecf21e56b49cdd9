"""The anchors of one scale in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_fedmepd.evaluation.report.blocks import Picture, drawing
from nnunet_fedmepd.evaluation.report.style import light_frame
from nnunet_fedmepd.pictures import label_colour, new_figure

_MARKERS = "osD^vP*X"


def project(anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 2) principal components of N anchors (N, C), and the share of variance that each explains."""
    from sklearn.decomposition import PCA

    points, shares, n_components = np.zeros((len(anchors), 2)), np.zeros(2), min(2, *anchors.shape)
    if len(anchors) > 1:
        pca = PCA(n_components)
        points[:, :n_components] = pca.fit_transform(anchors)
        shares[:n_components] = np.nan_to_num(pca.explained_variance_ratio_)
    return points, shares


def draw_anchors(scale: int, anchors: np.ndarray, valid: np.ndarray, class_names: Sequence[str]) -> Picture:
    """Draw the valid anchors of a scale, a colour and a marker a class.

    Args:
        scale: 0 is the full resolution.
        anchors: (L, K, C).
        valid: (L, K) bool, some of them true.
        class_names: background first.
    """
    points, shares = project(anchors[valid])
    owners = np.nonzero(valid)[0]
    figure = new_figure(3.4, 3.1)
    panel = figure.subplots()
    for label in np.unique(owners):
        own = points[owners == label]
        marker, colour = _MARKERS[label % len(_MARKERS)], label_colour(label)
        x, y = own.T
        panel.scatter(x, y, s=46, marker=marker, color=colour, label=class_names[label], edgecolor="k", linewidth=0.6)
    panel.set_xlabel(f"component 1 ({shares[0]:.0%})", fontsize=8)
    panel.set_ylabel(f"component 2 ({shares[1]:.0%})", fontsize=8)
    panel.set_title(f"scale {scale + 1}, {anchors.shape[-1]} features", fontsize=9, loc="left")
    panel.margins(0.12)
    light_frame(panel)
    panel.tick_params(labelsize=7)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=7)
    return drawing(figure, f"Anchors of scale {scale + 1} in two principal components, by class")
