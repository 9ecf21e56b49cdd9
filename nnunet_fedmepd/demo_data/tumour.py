"""Where a tumour starts, how it pushes the brain aside, and the shape of its core."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnunet_fedmepd.demo_data.anatomy import Anatomy, Tissues, distance_mm
from nnunet_fedmepd.demo_data.fields import draw_field
from nnunet_fedmepd.demo_data.lattice import F32, Lattice, Mask, Vector, VectorField, Volume
from nnunet_fedmepd.demo_data.sites import Site
from nnunet_fedmepd.errors import ConfigurationError

_SMALLEST_FOCUS_MM3 = 400.0


@dataclass(frozen=True)
class TumourPlan:
    """What is drawn of a tumour before it is placed.

    Args:
        high_grade: HGG or LGG.
        radius_mm: radius of the core, before noise.
        position: which of the possible starting voxels, as a quantile from 0 to 1.
        mass_effect: displacement of the brain at the tumour, as a share of the distance to its centre.
    """

    high_grade: bool
    radius_mm: float
    position: float
    mass_effect: float

    @property
    def grade(self) -> str:
        return "HGG" if self.high_grade else "LGG"


@dataclass(frozen=True, eq=False)
class TumourSeat:
    """Where the tumour starts: its centre, (3,), in mm, and its hemisphere, the sign of the atlas's X."""

    centre_mm: Vector
    hemisphere: np.float32


@dataclass(frozen=True, eq=False)
class TumourCore:
    """The tumour core (enhancing, non-enhancing and necrotic parts together).

    Args:
        plan, seat: the tumour to which it belongs.
        mask: its voxels.
        depth_mm: distance inside its surface, roughly; negative outside.
    """

    plan: TumourPlan
    seat: TumourSeat
    mask: Mask
    depth_mm: Volume


def draw_tumour(rng: np.random.Generator, site: Site, mass_effect: float) -> TumourPlan:
    """Draw grade, size, position and mass effect of one patient's tumour."""
    high_grade = bool(rng.random() < site.high_grade_share)
    radius_mm = rng.lognormal(np.log(17 if high_grade else 19), 0.27) * site.tumour_size_factor
    return TumourPlan(
        high_grade=high_grade,
        radius_mm=float(np.clip(radius_mm, 9, 30)),
        position=rng.random(),
        mass_effect=float(rng.uniform(0, 0.30) * (1.0 if high_grade else 0.7)) * mass_effect,
    )


def find_seat(plan: TumourPlan, tissues: Tissues, lattice: Lattice) -> TumourSeat:
    """Choose the starting voxel: deep white matter above the tentorium, off the midline and the ventricles.

    Raises:
        ConfigurationError: no voxel qualifies, since the brain is too small or the voxels are too coarse.
    """
    brain = tissues.coverage > 0.5
    z_mm, _, x_mm = tissues.atlas_mm
    deep = distance_mm(brain, lattice) > max(9, 0.55 * plan.radius_mm)
    weight = tissues.fractions[2] * brain * (z_mm > -12) * deep * (np.abs(x_mm) > 7) * (tissues.ventricles < 0.1)
    cumulated = np.cumsum(np.where(weight > 0.5, weight, 0).ravel(), dtype=np.float64)
    if cumulated[-1] == 0:
        raise ConfigurationError(
            f"No place in the brain for a tumour core of radius {plan.radius_mm:.1f} mm: found no deep white matter "
            f"in an image of {lattice.image_shape[::-1]} voxels of {lattice.voxel_mm[0]:g} mm. Use a larger field of "
            "view (shape times spacing) or smaller voxels."
        )
    voxel = int(np.searchsorted(cumulated, plan.position * cumulated[-1]))
    centre_mm = np.array([axis.ravel()[voxel] for axis in lattice.points_mm])
    return TumourSeat(centre_mm, np.sign(x_mm.ravel()[voxel]))


def find_origins(lattice: Lattice, plan: TumourPlan, seat: TumourSeat) -> VectorField:
    """Return where the tissue now found at each voxel was before the tumour pushed it aside, in mm."""
    distance = _distance_to(seat.centre_mm, lattice)
    share = F32(plan.mass_effect) * np.exp(-((distance / F32(1.7 * plan.radius_mm)) ** 2))
    z, y, x = (p - (p - F32(c)) * share for p, c in zip(lattice.points_mm, seat.centre_mm, strict=True))
    return z, y, x


def grow_core(
    rng: np.random.Generator, lattice: Lattice, plan: TumourPlan, seat: TumourSeat, anatomy: Anatomy
) -> TumourCore:
    """Grow the core as the inside of a level set: a noisy ellipsoid that CSF and the falx hold back."""
    ellipsoid_mm = _draw_ellipsoid(rng, lattice, seat)
    coarse, middle, fine = draw_field(rng, lattice, 18.0), draw_field(rng, lattice, 9.0), draw_field(rng, lattice, 4.5)
    radius_mm = plan.radius_mm
    level = ellipsoid_mm - F32(radius_mm) - F32(0.20 * radius_mm) * coarse - F32(0.13 * radius_mm) * middle
    barrier = _barrier(anatomy, seat)
    level = level - F32(1.0) * fine + barrier
    if rng.random() < (0.18 if plan.high_grade else 0.05):
        level = np.minimum(level, _draw_satellite(rng, lattice, plan, seat, middle, fine) + barrier)
    level = np.where(anatomy.brain & (anatomy.depth_mm > 1.0), level, np.maximum(level, F32(1.0)))
    specks = _specks(level < 0, lattice)
    level = np.where(specks, F32(1.0), level)
    return TumourCore(plan, seat, level < 0, -level)


def _distance_to(centre_mm: Vector, lattice: Lattice) -> Volume:
    return np.sqrt(sum((p - F32(c)) ** 2 for p, c in zip(lattice.points_mm, centre_mm, strict=True)))


def _draw_ellipsoid(rng: np.random.Generator, lattice: Lattice, seat: TumourSeat) -> Volume:
    """Return the distance to the seat, in mm, measured along randomly turned and stretched axes."""
    stretch = np.exp(rng.normal(0, 0.18, 3))
    stretch /= stretch.prod() ** (1 / 3)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    offset = [p - F32(c) for p, c in zip(lattice.points_mm, seat.centre_mm, strict=True)]
    turned = [sum(F32(turn[k, j]) * offset[j] for j in range(3)) for k in range(3)]
    return np.sqrt(sum((along / F32(factor)) ** 2 for along, factor in zip(turned, stretch, strict=True)))


def _barrier(anatomy: Anatomy, seat: TumourSeat) -> Volume:
    x_mm = anatomy.atlas_mm[2]
    beyond_falx = np.where(x_mm * seat.hemisphere < 0, F32(0.9) * np.abs(x_mm), 0)
    return F32(11) * np.maximum(anatomy.csf - 0.35, 0) + beyond_falx


def _draw_satellite(
    rng: np.random.Generator, lattice: Lattice, plan: TumourPlan, seat: TumourSeat, middle: Volume, fine: Volume
) -> Volume:
    """Return the level set of a second, smaller focus beside the core."""
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    centre_mm = seat.centre_mm + direction * plan.radius_mm * rng.uniform(1.2, 1.9)
    radius_mm = plan.radius_mm * rng.uniform(0.3, 0.5)
    return _distance_to(centre_mm, lattice) - F32(radius_mm) - F32(0.2 * radius_mm) * middle - fine


def _specks(mask: Mask, lattice: Lattice) -> Mask:
    """Return the pieces that are too small to be a focus; none when there is a single piece or nothing else."""
    pieces, count = ndimage.label(mask)
    kept = keep_large_pieces(pieces, _SMALLEST_FOCUS_MM3, lattice)
    return mask & ~kept if count > 1 and kept.any() else np.zeros_like(mask)


def keep_large_pieces(pieces: np.ndarray, smallest_mm3: float, lattice: Lattice) -> Mask:
    """Return the voxels of the labelled `pieces` (0 is background) that are larger than `smallest_mm3`."""
    volume_mm3 = np.bincount(pieces.ravel()) * lattice.voxel_volume_mm3
    volume_mm3[0] = 0
    return np.isin(pieces, np.where(volume_mm3 > smallest_mm3)[0])
