"""What the tumour core is made of: enhancing rim, non-enhancing part, necrosis and blood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_fedmepd.demo_data.fields import draw_field
from nnunet_fedmepd.demo_data.lattice import F32, Lattice, Mask, Volume, soft_step
from nnunet_fedmepd.demo_data.tumour import TumourCore


@dataclass(frozen=True, eq=False)
class Composition:
    """Shares of the core's parts at every voxel; the first three sum to 1, blood is a share of the whole.

    Args:
        enhancing, non_enhancing, necrosis, blood: shares, meaningful within the core.
    """

    enhancing: Volume
    non_enhancing: Volume
    necrosis: Volume
    blood: Volume

    def enhancing_mask(self, core: TumourCore) -> Mask:
        """Return the voxels of the core that are mostly enhancing."""
        return core.mask & (self.enhancing > 0.5)


@dataclass(frozen=True, eq=False)
class _Textures:
    """Fields that vary the parts, named after their scale in mm."""

    mm8: Volume
    mm12: Volume
    mm5: Volume
    mm6: Volume


def compose_core(rng: np.random.Generator, lattice: Lattice, core: TumourCore) -> Composition:
    """Draw the composition: HGG have an enhancing rim round necrosis, LGG are mostly non-enhancing."""
    textures = _Textures(*(draw_field(rng, lattice, scale) for scale in (8.0, 12.0, 5.0, 6.0)))
    if core.plan.high_grade:
        return _compose_high_grade(rng, core, textures)
    return _compose_low_grade(rng, core, textures)


def _compose_high_grade(rng: np.random.Generator, core: TumourCore, textures: _Textures) -> Composition:
    solid = rng.random() < 0.12
    thickness_mm = F32(rng.uniform(3.0, 6.5) + (4 if solid else 0))
    rim_mm = thickness_mm * np.clip(1 + F32(0.45) * textures.mm8, 0.35, 2.2)
    necrosis = soft_step((core.depth_mm - rim_mm) / F32(0.8))
    non_enhancing = soft_step(F32(3) * (textures.mm12 - F32(rng.uniform(0.75, 1.7))) / F32(0.8))
    bleeding = rng.random() < 0.35
    clots = soft_step((textures.mm6 - F32(1.1)) / F32(0.25)) * necrosis
    return Composition(
        enhancing=(1 - necrosis) * (1 - non_enhancing),
        non_enhancing=(1 - necrosis) * non_enhancing,
        necrosis=necrosis,
        blood=clots if bleeding else np.zeros_like(core.depth_mm),
    )


def _compose_low_grade(rng: np.random.Generator, core: TumourCore, textures: _Textures) -> Composition:
    enhancing = soft_step(_draw_enhancing_nodules(rng, core, textures) / F32(0.8))
    cysts = soft_step((textures.mm8 - F32(rng.uniform(1.2, 2.6))) / F32(0.3)) * soft_step(core.depth_mm - 4)
    return Composition(
        enhancing=enhancing,
        non_enhancing=(1 - enhancing) * (1 - cysts),
        necrosis=(1 - enhancing) * cysts,
        blood=np.zeros_like(core.depth_mm),
    )


def _draw_enhancing_nodules(rng: np.random.Generator, core: TumourCore, textures: _Textures) -> Volume:
    """Return a level that is positive inside nodules, which four in ten LGG have, below the core's surface."""
    if rng.random() < 0.40:
        level = F32(2.5) * (textures.mm5 + F32(0.5) * textures.mm12 - F32(rng.uniform(1.0, 1.7)))
    else:
        level = np.full_like(core.depth_mm, -30)
    return np.where(core.depth_mm > 1.5, level, np.minimum(level, -2))
