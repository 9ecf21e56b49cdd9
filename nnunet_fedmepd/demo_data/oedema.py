"""Oedema: a front that leaves the tumour core, fast along white matter, slow in grey matter, hardly into CSF."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK
from scipy import ndimage

from nnunet_fedmepd.demo_data.anatomy import Anatomy
from nnunet_fedmepd.demo_data.fields import draw_field
from nnunet_fedmepd.demo_data.lattice import F32, Lattice, Mask, Volume, soft_step
from nnunet_fedmepd.demo_data.sites import Site
from nnunet_fedmepd.demo_data.tumour import TumourCore, TumourSeat, keep_large_pieces

_FAR_MM = 1e3  # arrival of a front that never comes
_CORE_SPEED = 60
_SMALLEST_PIECE_MM3 = 300.0


@dataclass(frozen=True, eq=False)
class Oedema:
    """The oedema round a tumour core.

    Args:
        mask: its voxels.
        weight: share of oedema at every voxel, 0 in the core.
        arrival_mm: path length of the front, in mm of white matter.
        reach_mm: the arrival at which the oedema ends.
    """

    mask: Mask
    weight: Volume
    arrival_mm: Volume
    reach_mm: float


def spread_oedema(rng: np.random.Generator, lattice: Lattice, core: TumourCore, anatomy: Anatomy, site: Site) -> Oedema:
    """Draw how far the oedema reaches, and let it spread from the core."""
    reach_mm = rng.lognormal(np.log(13 if core.plan.high_grade else 6.5), 0.45) * site.oedema_factor
    reach_mm = float(np.clip(reach_mm, 2.5, 30))
    speed = _draw_speed(rng, lattice, anatomy, core.seat)
    arrival_mm = march_front(core.mask, speed, lattice, reach_mm + 12)
    fading = soft_step((F32(reach_mm) - arrival_mm) / F32(1.3 + 0.06 * reach_mm))
    weight = np.where(core.mask, 0, fading) * np.clip(1.25 * (1 - anatomy.csf) - 0.1, 0, 1)
    reached = arrival_mm < reach_mm * F32(np.exp(rng.normal(0, 0.04)))
    mask = _clean(reached & ~core.mask & anatomy.brain & (anatomy.csf < 0.5), core, lattice)
    return Oedema(mask, weight, arrival_mm, reach_mm)


def _draw_speed(rng: np.random.Generator, lattice: Lattice, anatomy: Anatomy, seat: TumourSeat) -> Volume:
    by_tissue = F32(1.0) * anatomy.white + F32(0.33) * anatomy.grey + F32(0.02) * anatomy.csf
    speed = by_tissue * np.exp(F32(0.30) * draw_field(rng, lattice, 11.0) + F32(0.2) * draw_field(rng, lattice, 5.0))
    other_hemisphere = anatomy.atlas_mm[2] * seat.hemisphere < -4
    speed = np.where(other_hemisphere, speed * F32(0.45), speed)
    return np.where(anatomy.brain, speed, F32(0.01))


def _clean(mask: Mask, core: TumourCore, lattice: Lattice) -> Mask:
    """Remove thin sheets, and small pieces that do not touch the core."""
    mask = ndimage.binary_opening(mask | core.mask) & ~core.mask & mask
    pieces, count = ndimage.label(mask | core.mask)
    return mask & keep_large_pieces(pieces, _SMALLEST_PIECE_MM3, lattice) if count > 1 else mask


def march_front(core: Mask, speed: Volume, lattice: Lattice, stop_mm: float) -> Volume:
    """Return when a front that leaves `core` arrives at every voxel: path length divided by `speed`, in mm.

    Fast marching in a box round the core; voxels that the front does not reach before `stop_mm` hold larger values.
    """
    arrival_mm = np.full(core.shape, _FAR_MM, F32)
    if not core.any():
        return arrival_mm
    box = _box_round(core, lattice, 1.3 * stop_mm)
    image = SimpleITK.GetImageFromArray(np.where(core[box], F32(_CORE_SPEED), speed[box]))
    image.SetSpacing([float(mm) for mm in lattice.voxel_mm[::-1]])
    marching = SimpleITK.FastMarchingImageFilter()
    marching.SetTrialPoints(_deepest_points(core[box]))
    marching.SetStoppingValue(float(stop_mm))
    marching.SetNormalizationFactor(1.0)
    arrival_mm[box] = np.minimum(SimpleITK.GetArrayFromImage(marching.Execute(image)), _FAR_MM)
    return arrival_mm


def _box_round(mask: Mask, lattice: Lattice, margin_mm: float) -> tuple[slice, ...]:
    margins = [int(np.ceil(margin_mm / mm)) for mm in lattice.voxel_mm]
    return tuple(
        slice(max(0, int(index.min()) - margin), int(index.max()) + margin + 1)
        for index, margin in zip(np.where(mask), margins, strict=True)
    )


def _deepest_points(mask: Mask) -> list[list[int]]:
    """Return the voxel, (x, y, z), deepest inside each piece of the mask."""
    pieces, count = ndimage.label(mask)
    depths = (ndimage.distance_transform_edt(pieces == piece) for piece in range(1, count + 1))
    return [[int(i) for i in np.unravel_index(int(np.argmax(depth)), depth.shape)[::-1]] for depth in depths]
