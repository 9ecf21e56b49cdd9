"""The tissues of one patient on the voxel lattice: the atlas sampled through the patient's deformation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from nnunet_fedmepd.demo_data.atlas import Atlas
from nnunet_fedmepd.demo_data.fields import draw_field
from nnunet_fedmepd.demo_data.head import Head, map_to_atlas
from nnunet_fedmepd.demo_data.lattice import F32, Lattice, Mask, VectorField, Volume

_SHARPENING = 1.7  # exponent that undoes some of the blur of the averaged template


@dataclass(frozen=True, eq=False)
class Tissues:
    """Tissue fractions as sampled from the atlas.

    Args:
        fractions: CSF, grey and white matter, (3, Z, Y, X), summing to 1.
        coverage: sum of the atlas's fractions before that, near 0 outside the head.
        ventricles: 1 inside the ventricles.
        atlas_mm: atlas coordinates of every voxel; the sign of the last tells the hemisphere.
    """

    fractions: Float[np.ndarray, "3 Z Y X"]
    coverage: Volume
    ventricles: Volume
    atlas_mm: VectorField


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The healthy anatomy in which the tumour grows.

    Args:
        csf, grey, white: tissue fractions.
        ventricles: 1 inside the ventricles.
        atlas_mm: atlas coordinates of every voxel.
        brain: the brain mask, one piece without holes.
        depth_mm: distance to the brain's surface, 0 outside.
        age: 0 (youngest) to 1 (oldest).
    """

    csf: Volume
    grey: Volume
    white: Volume
    ventricles: Volume
    atlas_mm: VectorField
    brain: Mask
    depth_mm: Volume
    age: float


def sample_tissues(points_mm: VectorField, displacement_mm: VectorField, head: Head, atlas: Atlas) -> Tissues:
    """Sample the atlas at the patient's points."""
    atlas_mm = map_to_atlas(points_mm, displacement_mm, head, atlas)
    index = np.stack([atlas_mm[i] + F32(atlas.centre[i]) for i in range(3)])
    sampled = np.stack([ndimage.map_coordinates(tissue, index, order=1, output=F32) for tissue in atlas.tissues])
    ventricles = ndimage.map_coordinates(atlas.ventricles, index, order=1, output=F32)
    fractions = np.clip(sampled, 1e-6, 1) ** F32(_SHARPENING)
    fractions[0] *= F32(head.csf_factor)
    return Tissues(fractions / fractions.sum(0), sampled.sum(0), ventricles, atlas_mm)


def build_anatomy(rng: np.random.Generator, lattice: Lattice, tissues: Tissues, age: float) -> Anatomy:
    """Find the brain within the tissues; a random field roughens its surface."""
    brain = _largest_piece((tissues.coverage + F32(0.10) * draw_field(rng, lattice, 12.0)) > 0.5)
    all_csf = np.array([1, 0, 0], F32)[:, None, None, None]
    csf, grey, white = np.where(tissues.coverage > 0.05, tissues.fractions, all_csf)
    depth_mm = distance_mm(brain, lattice)
    return Anatomy(csf, grey, white, tissues.ventricles, tissues.atlas_mm, brain, depth_mm, age)


def distance_mm(mask: Mask, lattice: Lattice) -> Volume:
    """Return the distance of each voxel of `mask` to the nearest voxel outside it, in mm."""
    return ndimage.distance_transform_edt(mask, sampling=lattice.voxel_mm).astype(F32)


def _largest_piece(mask: Mask) -> Mask:
    pieces, _ = ndimage.label(ndimage.binary_opening(mask, iterations=1))
    largest = 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return ndimage.binary_fill_holes(pieces == largest)
