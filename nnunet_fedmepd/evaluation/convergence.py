"""How many steps a method needs to be as good, on validation patches, as the baseline ever gets."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from nnunet_fedmepd.federation.storage import write_atomically

# Rounds that a point of a curve is the mean of: pseudo Dice of few patches jumps about.
_WINDOW = 5
# A plateau counts as reached this far below its highest point, where a curve is flat and noise decides.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class CurvePoint:
    """How good a model was on validation patches after some steps.

    Attributes:
        method: name.
        seed: of the training.
        site: whose model and patches.
        steps: training steps of the site so far.
        pseudo_dice: mean over classes, of nnU-Net's validation patches.
    """

    method: str
    seed: int
    site: str
    steps: int
    pseudo_dice: float


@dataclass(frozen=True)
class Convergence:
    """How soon a method reaches the baseline's plateau at a site.

    Attributes:
        site: name.
        method: name.
        steps: until the plateau of the baseline with the same seed, mean over seeds; NaN where a seed never gets there.
        baseline_steps: what the baseline itself needs, mean over seeds.
    """

    site: str
    method: str
    steps: float
    baseline_steps: float


def write_curves(file: Path, points: Iterable[CurvePoint]) -> None:
    """Write all curves into one table, atomically.

    Raises:
        StateFileError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(CurvePoint)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(point) for point in points)
    write_atomically(file, text.getvalue().encode())


def converge(points: Sequence[CurvePoint], baseline: str) -> list[Convergence]:
    """Return how soon every method reaches the baseline's plateau, at every site that both have.

    The plateau is the highest point of the baseline's curve, and counts as reached from 0.01 below it on; every point
    is the mean of the last 5 rounds.

    Args:
        points: curves of several methods, sites and seeds.
        baseline: the method whose plateau is to be reached.
    """
    curves: dict[tuple[str, str, int], list[CurvePoint]] = {}
    for point in points:
        curves.setdefault((point.site, point.method, point.seed), []).append(point)
    needed: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for (site, method, seed), curve in curves.items():
        reference = curves.get((site, baseline, seed))
        if reference is not None:
            level = float(np.max(_smooth(reference))) - _TOLERANCE
            needed.setdefault((site, method), []).append((_first(curve, level), _first(reference, level)))
    return [
        Convergence(site, method, float(np.mean([own for own, _ in pairs])), float(np.mean([ref for _, ref in pairs])))
        for (site, method), pairs in needed.items()
    ]


def _first(curve: Sequence[CurvePoint], level: float) -> float:
    """Return the steps until a curve is at a level; NaN if it never is."""
    reached = np.flatnonzero(_smooth(curve) >= level)
    return float(curve[reached[0]].steps) if reached.size else math.nan


def _smooth(curve: Sequence[CurvePoint]) -> np.ndarray:
    values = np.array([point.pseudo_dice for point in curve])
    return np.array([values[max(0, i + 1 - _WINDOW) : i + 1].mean() for i in range(len(values))])
