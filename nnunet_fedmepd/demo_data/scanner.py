"""From signal to image: contrast curve, point spread, bias field, Rician noise, scale and integers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int16
from scipy import ndimage

from nnunet_fedmepd.demo_data.fields import draw_field
from nnunet_fedmepd.demo_data.lattice import F32, Lattice, Mask, Volume
from nnunet_fedmepd.demo_data.sites import ModalityScanner

_LARGEST_GREY_VALUE = 32000
_NOISE_CORRELATION_MM = 0.55


def acquire(
    rng: np.random.Generator,
    lattice: Lattice,
    signal: Volume,
    brain: Mask,
    scanner: ModalityScanner,
) -> Int16[np.ndarray, "Z Y X"]:
    """Return the image that `scanner` makes of `signal`: 1 to 32000 in the brain, 0 outside."""
    contrasted = 1000 * (np.maximum(signal, 1) / 1000) ** F32(scanner.gamma)
    image = _blur(contrasted * brain, brain, scanner, lattice)
    bias = F32(scanner.bias * rng.uniform(0.6, 1.3)) * draw_field(rng, lattice, 60.0)
    image = _add_rician_noise(rng, image * np.exp(bias), scanner, lattice)
    image = image * F32(scanner.scale * np.exp(rng.normal(0, 0.08)))
    return np.where(brain, np.clip(np.round(image), 1, _LARGEST_GREY_VALUE), 0).astype(np.int16)


def _blur(image: Volume, brain: Mask, scanner: ModalityScanner, lattice: Lattice) -> Volume:
    """Blur within the brain: the darkness outside does not bleed in."""
    in_plane = scanner.blur_mm
    sd_voxels = np.array([np.hypot(in_plane, scanner.slice_blur_mm), in_plane, in_plane]) / lattice.voxel_mm
    coverage = ndimage.gaussian_filter(brain.astype(F32), sd_voxels, output=F32)
    return ndimage.gaussian_filter(image.astype(F32), sd_voxels, output=F32) / np.maximum(coverage, 0.05)


def _add_rician_noise(rng: np.random.Generator, image: Volume, scanner: ModalityScanner, lattice: Lattice) -> Volume:
    larger_voxels_average = lattice.voxel_volume_mm3 ** (-1 / 6)
    sd = scanner.noise * 1000 * rng.uniform(0.8, 1.25) * larger_voxels_average
    real, imaginary = (_draw_noise(rng, image.shape, sd, lattice) for _ in range(2))
    return np.sqrt((image + real) ** 2 + imaginary**2)


def _draw_noise(rng: np.random.Generator, shape: tuple[int, ...], sd: float, lattice: Lattice) -> Volume:
    """Draw Gaussian noise of standard deviation `sd`, correlated between neighbours where voxels are small."""
    correlation = _NOISE_CORRELATION_MM * np.minimum(1, 1.0 / lattice.voxel_mm)
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=F32), correlation, output=F32)
    return noise * F32(sd / np.maximum(noise.std(), F32(1e-6)))
