"""Smooth random fields: standard normal coefficients on a coarse cubic B-spline lattice.

The spline lattice is laid out in millimetres, so one seed gives one field whatever the voxel size.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from nnunet_fedmepd.demo_data.lattice import F32, Lattice, Volume

_HALF_EXTENT_MM = 130.0  # beyond every head box


def draw_field(rng: np.random.Generator, lattice: Lattice, scale_mm: float) -> Volume:
    """Draw one float32 field of mean 0 and variance 1 whose structures are about `scale_mm` wide."""
    knots = int(np.ceil(2 * _HALF_EXTENT_MM / scale_mm)) + 4
    weights = [_spline_weights(axis, scale_mm, knots) for axis in lattice.axes_mm]
    field = rng.standard_normal([knots] * 3).astype(F32)
    for axis_weights in weights:  # contracts the first axis and appends the voxel axis at the end
        field = np.tensordot(field, axis_weights, axes=(0, 1))
    variance = np.prod([np.mean((w**2).sum(1)) for w in weights])
    return field / F32(np.sqrt(variance))


def _spline_weights(axis_mm: Float[np.ndarray, " n"], scale_mm: float, knots: int) -> Float[np.ndarray, "n knots"]:
    first_knot_mm = -_HALF_EXTENT_MM - 1.5 * scale_mm
    t = np.abs((axis_mm[:, None] - (first_knot_mm + scale_mm * np.arange(knots))[None]) / scale_mm)
    return np.where(t < 1, 2 / 3 - t * t + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0)).astype(F32)
