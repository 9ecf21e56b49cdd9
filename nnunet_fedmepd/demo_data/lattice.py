"""The voxel lattice of a case, in millimetres, cropped to the box that holds the head."""

# Z Y X space, in the array order of SimpleITK; the lattice's origin is the centre of the image

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Shaped

Volume: TypeAlias = Float[np.ndarray, "Z Y X"]
Mask: TypeAlias = Bool[np.ndarray, "Z Y X"]
Vector: TypeAlias = Float[np.ndarray, "zyx=3"]
VectorField: TypeAlias = tuple[Volume, Volume, Volume]

F32 = np.float32
HEAD_BOX_MM = (82.0, 100.0, 80.0)  # half widths that hold every brain the generator makes


@dataclass(frozen=True, eq=False)
class Lattice:
    """Where the voxels lie.

    Args:
        image_shape: voxels of the whole image, (Z, Y, X).
        voxel_mm: voxel size, (3,), in the same order.
        crop: the part of the image that is computed.
        axes_mm: voxel centres of that part along each axis.
    """

    image_shape: tuple[int, ...]
    voxel_mm: Vector
    crop: tuple[slice, ...]
    axes_mm: tuple[Float[np.ndarray, " _"], ...]

    @classmethod
    def of_image(cls, shape: tuple[int, int, int], spacing_mm: float) -> Lattice:
        """Return the lattice of an image of `shape` (X, Y, Z) with cubic voxels of `spacing_mm`."""
        image_shape = shape[::-1]
        axes = [(np.arange(n) - (n - 1) / 2) * spacing_mm for n in image_shape]
        crop = tuple(
            slice(int(np.searchsorted(axis, -half)), int(np.searchsorted(axis, half)))
            for axis, half in zip(axes, HEAD_BOX_MM, strict=True)
        )
        cropped = tuple(axis[part] for axis, part in zip(axes, crop, strict=True))
        return cls(image_shape, np.full(3, float(spacing_mm)), crop, cropped)

    @property
    def voxel_volume_mm3(self) -> float:
        return float(self.voxel_mm.prod())

    @property
    def half_field_of_view_mm(self) -> Vector:
        return np.array(self.image_shape) * self.voxel_mm / 2

    @cached_property
    def points_mm(self) -> VectorField:
        """The Z, Y and X coordinate of every voxel of the crop, in mm."""
        z, y, x = np.meshgrid(*[axis.astype(F32) for axis in self.axes_mm], indexing="ij")
        return z, y, x

    def embed(self, cropped: Shaped[np.ndarray, "z y x"]) -> Shaped[np.ndarray, "Z Y X"]:
        """Return the whole image, zero outside the crop."""
        image = np.zeros(self.image_shape, cropped.dtype)
        image[self.crop] = cropped
        return image


def soft_step(x: Volume) -> Volume:
    """Return the logistic function of `x`: a membership between 0 and 1 that is 0.5 where `x` is 0."""
    return F32(1) / (F32(1) + np.exp(-np.clip(x, -30, 30)))
