"""The average brain from which every case is deformed: tissue fractions of the ICBM 152 template.

The maps derive from the ICBM 152 nonlinear 2009a symmetric atlas; ANATOMY_NOTICE.txt holds their copyright notice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from nnunet_fedmepd.demo_data.lattice import F32, Vector, Volume

_ADULT_BRAIN_MM3 = 1350e3


@dataclass(frozen=True, eq=False)
class Atlas:
    """The average brain, in voxels of 1 mm.

    Args:
        tissues: fractions of CSF, grey and white matter, (3, Z, Y, X).
        ventricles: 1 inside the ventricles.
        centre: voxel index of the brain's centre of mass, the origin of atlas coordinates.
        adult_scale: factor that gives the brain an adult's mean volume.
        ventricle_centre_mm: centre of the ventricles.
        half_extent_mm: half the size of the brain's bounding box.
        box_centre_mm: centre of that box.
    """

    tissues: Float[np.ndarray, "3 Z Y X"]
    ventricles: Volume
    centre: Vector
    adult_scale: float
    ventricle_centre_mm: Vector
    half_extent_mm: Vector
    box_centre_mm: Vector


@cache
def load_atlas() -> Atlas:
    """Read the atlas that comes with the package; read once per process."""
    tissues, ventricles = _read_maps()
    brain = tissues.sum(0) > 0.5
    centre = np.array(ndimage.center_of_mass(brain))
    bounds = np.array([(index.min(), index.max()) for index in np.where(brain)])
    return Atlas(
        tissues=tissues,
        ventricles=ventricles,
        centre=centre,
        adult_scale=float((_ADULT_BRAIN_MM3 / brain.sum()) ** (1 / 3)),
        ventricle_centre_mm=np.array(ndimage.center_of_mass(ventricles)) - centre,
        half_extent_mm=(bounds[:, 1] - bounds[:, 0]) / 2,
        box_centre_mm=bounds.sum(1) / 2 - centre,
    )


def _read_maps() -> tuple[Float[np.ndarray, "3 Z Y X"], Volume]:
    resource = files("nnunet_fedmepd.demo_data") / "anatomy_mni152.npz"
    with resource.open("rb") as file, np.load(file) as stored:
        shape = tuple(int(n) for n in stored["shape"])
        ventricle_bits = np.unpackbits(stored["vent"])[: int(np.prod(shape))]
        tissues = np.stack([stored[name].astype(F32) / 255 for name in ("csf", "gm", "wm")])
    return tissues, ventricle_bits.reshape(shape).astype(F32)
