"""What resembles a tumour in one modality or another but is none: vessels, choroid plexus, meninges, old lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnunet_fedmepd.demo_data.anatomy import Anatomy, distance_mm
from nnunet_fedmepd.demo_data.fields import draw_field
from nnunet_fedmepd.demo_data.lattice import F32, Lattice, Volume, soft_step
from nnunet_fedmepd.demo_data.oedema import Oedema
from nnunet_fedmepd.demo_data.tumour import TumourCore

_NO_VENTRICLES_MM = 99


@dataclass(frozen=True, eq=False)
class Confounders:
    """Share of each confounder at every voxel, 0 in the tumour core.

    Args:
        vessels: bright on T1ce; with the sagittal sinus.
        choroid: choroid plexus, bright on T1ce.
        meninges: bright on T1ce.
        hyperintensities: white-matter lesions, bright on FLAIR and T2.
        lacunes: small holes filled with CSF.
    """

    vessels: Volume
    choroid: Volume
    meninges: Volume
    hyperintensities: Volume
    lacunes: Volume


def draw_confounders(
    rng: np.random.Generator,
    lattice: Lattice,
    anatomy: Anatomy,
    core: TumourCore,
    oedema: Oedema,
    strength: float,
) -> Confounders:
    """Draw the confounders of one patient; older patients have more hyperintensities.

    Args:
        strength: 0 for none, 1 for the usual amount.
    """
    healthy = np.where(core.mask, 0, 1) * (1 - F32(0.8) * oedema.weight)
    return Confounders(
        vessels=_draw_vessels(rng, lattice, anatomy, strength) * healthy,
        choroid=_draw_choroid(rng, lattice, anatomy, strength) * healthy,
        meninges=_draw_meninges(rng, lattice, anatomy, strength) * healthy,
        hyperintensities=_draw_hyperintensities(rng, lattice, anatomy, strength) * healthy,
        lacunes=_draw_lacunes(rng, lattice, anatomy, healthy, strength),
    )


def _draw_vessels(rng: np.random.Generator, lattice: Lattice, anatomy: Anatomy, strength: float) -> Volume:
    """Vessels follow the lines where two fields are both 0, mostly near CSF."""
    a, b, c, d = (draw_field(rng, lattice, scale) for scale in (15.0, 15.0, 22.0, 22.0))
    tubes = np.exp(-(a**2 + b**2) / F32(2 * 0.11**2)) + np.exp(-(c**2 + d**2) / F32(2 * 0.085**2))
    near_csf = ndimage.gaussian_filter(anatomy.csf, 1.5 / lattice.voxel_mm, output=F32)
    weight = np.clip(tubes, 0, 1) * np.clip(0.22 + 1.6 * near_csf, 0, 1) * (anatomy.ventricles < 0.3)
    weight = np.maximum(weight * np.clip(anatomy.depth_mm / 2, 0, 1), _sagittal_sinus(anatomy))
    return np.clip(weight * F32(strength * rng.uniform(0.6, 1.1)), 0, 1)


def _sagittal_sinus(anatomy: Anatomy) -> Volume:
    z_mm, y_mm, x_mm = anatomy.atlas_mm
    along_the_top = (anatomy.depth_mm < 5) * (z_mm > -25) * ((z_mm > 25) | (y_mm > 40))
    return F32(0.95) * np.exp(-((x_mm / F32(3)) ** 2)) * along_the_top


def _draw_choroid(rng: np.random.Generator, lattice: Lattice, anatomy: Anatomy, strength: float) -> Volume:
    plexus = (anatomy.ventricles > 0.5) * soft_step((draw_field(rng, lattice, 5.0) - F32(0.9)) / F32(0.25))
    return plexus * (anatomy.atlas_mm[1] > -10) * F32(strength * rng.uniform(0.4, 1.0))


def _draw_meninges(rng: np.random.Generator, lattice: Lattice, anatomy: Anatomy, strength: float) -> Volume:
    sheet = np.exp(-anatomy.depth_mm / F32(1.6)) * soft_step(draw_field(rng, lattice, 15.0) * 2)
    return sheet * F32(strength * rng.uniform(0, 0.75))


def _draw_hyperintensities(rng: np.random.Generator, lattice: Lattice, anatomy: Anatomy, strength: float) -> Volume:
    age = anatomy.age
    from_ventricles_mm = _distance_from_ventricles(anatomy, lattice)
    caps = np.exp(-from_ventricles_mm / F32(1.5 + 4.5 * age)) * (from_ventricles_mm > 0)
    caps = caps * soft_step((draw_field(rng, lattice, 9.0) - F32(1.2 - 1.9 * age)) / F32(0.35))
    spots = soft_step((draw_field(rng, lattice, 5.5) - F32(3.3 - 1.25 * age)) / F32(0.18)) * (from_ventricles_mm < 40)
    return np.clip(np.maximum(caps, spots) * anatomy.white * F32(1.2 * strength), 0, 1)


def _distance_from_ventricles(anatomy: Anatomy, lattice: Lattice) -> Volume:
    if not (anatomy.ventricles > 0.4).any():
        return np.full(anatomy.brain.shape, _NO_VENTRICLES_MM, F32)
    return distance_mm(anatomy.ventricles < 0.4, lattice)


def _draw_lacunes(
    rng: np.random.Generator, lattice: Lattice, anatomy: Anatomy, healthy: Volume, strength: float
) -> Volume:
    holes = soft_step((draw_field(rng, lattice, 4.5) - F32(3.1)) / F32(0.15)) * (anatomy.white + anatomy.grey) * healthy
    return holes * F32(strength) * (anatomy.depth_mm > 8)
