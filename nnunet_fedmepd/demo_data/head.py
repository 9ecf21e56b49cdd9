"""One patient's head: the drawn affine, elastic and ventricular deformation that maps it to the atlas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nnunet_fedmepd.demo_data.atlas import Atlas
from nnunet_fedmepd.demo_data.fields import draw_field
from nnunet_fedmepd.demo_data.lattice import F32, Lattice, Vector, VectorField, Volume

_MARGIN_MM = 5  # kept free between the brain and the edge of the field of view
_VENTRICLE_REGION_MM = 17.0
_ELASTIC_SD_AND_SCALE_MM = ((2.6, 34.0), (1.2, 17.0), (0.45, 9.0))


@dataclass(frozen=True, eq=False)
class Head:
    """The drawn anatomy of one patient.

    Args:
        to_atlas: linear part of the map from the patient's to the atlas's millimetres, (3, 3).
        mirrored: left and right exchanged.
        age: 0 (youngest) to 1 (oldest).
        ventricle_factor: linear size of the ventricles relative to the atlas's.
        shift_mm: translation, (3,).
        csf_factor: weight of CSF against brain tissue; atrophy widens the sulci.
    """

    to_atlas: Float[np.ndarray, "3 3"]
    mirrored: bool
    age: float
    ventricle_factor: float
    shift_mm: Vector
    csf_factor: float


def draw_head(rng: np.random.Generator, atlas: Atlas, half_field_of_view_mm: Vector, site_age: float) -> Head:
    """Draw a head; it is made smaller where the field of view would not hold it."""
    rotation = _rotation(np.deg2rad(rng.normal(0, 3.5, 3)))
    size = atlas.adult_scale * np.exp(np.clip(rng.normal(0, 0.03), -0.06, 0.06))
    stretch = np.exp(np.clip(rng.normal(0, 0.03, 3), -0.05, 0.05))
    room = (half_field_of_view_mm - _MARGIN_MM) / (atlas.half_extent_mm * size * stretch)
    size *= min(1.0, float(room.min()))
    shear = np.eye(3) + np.triu(rng.normal(0, 0.02, (3, 3)), 1)
    mirrored = rng.random() < 0.5
    age = float(np.clip(site_age + rng.normal(0, 0.22), 0, 1))
    return Head(
        to_atlas=rotation @ np.diag(1 / (size * stretch)) @ shear,
        mirrored=mirrored,
        age=age,
        ventricle_factor=float(np.clip(np.exp(0.55 * (age - 0.45) + rng.normal(0, 0.12)), 0.75, 1.6)),
        shift_mm=rng.normal(0, 1.5, 3),
        csf_factor=float(np.exp(rng.normal(0.55 * (age - 0.5), 0.22))),
    )


def _rotation(angles: Vector) -> Float[np.ndarray, "3 3"]:
    cz, cy, cx = np.cos(angles)
    sz, sy, sx = np.sin(angles)
    about_z = np.array([[1, 0, 0], [0, cz, -sz], [0, sz, cz]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[cx, -sx, 0], [sx, cx, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def draw_displacement(rng: np.random.Generator, lattice: Lattice) -> VectorField:
    """Draw the elastic deformation: the sum of three fields, coarse to fine, for each direction, in mm."""

    def draw() -> Volume:
        return sum(
            (sd * draw_field(rng, lattice, scale) for sd, scale in _ELASTIC_SD_AND_SCALE_MM), start=np.zeros((), F32)
        )

    return draw(), draw(), draw()


def map_to_atlas(points_mm: VectorField, displacement_mm: VectorField, head: Head, atlas: Atlas) -> VectorField:
    """Return the atlas coordinates, in mm from the atlas's centre, of points in the patient's head."""
    moved = [points_mm[i] + F32(head.shift_mm[i]) + displacement_mm[i] for i in range(3)]
    z, y, x = (_row_times(head.to_atlas[i], moved) + F32(atlas.box_centre_mm[i]) for i in range(3))
    return _resize_ventricles((z, y, -x if head.mirrored else x), head.ventricle_factor, atlas)


def _row_times(row: Vector, vectors: list[Volume]) -> Volume:
    return F32(row[0]) * vectors[0] + F32(row[1]) * vectors[1] + F32(row[2]) * vectors[2]


def _resize_ventricles(points_mm: VectorField, factor: float, atlas: Atlas) -> VectorField:
    centre = [F32(c) for c in atlas.ventricle_centre_mm]
    dz, dy, dx = (point - c for point, c in zip(points_mm, centre, strict=True))
    nearness = np.exp(-(dz**2 + dy**2 * 0.5 + dx**2) / F32(2 * _VENTRICLE_REGION_MM**2))
    pull = 1 - F32(1 - 1 / factor) * nearness
    return dz * pull + centre[0], dy * pull + centre[1], dx * pull + centre[2]
