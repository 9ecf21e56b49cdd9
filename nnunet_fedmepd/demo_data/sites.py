"""What distinguishes one site from another: its patients and, for each modality, its scanner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_fedmepd.demo_data.contrast import LESION_SIGNAL, MODALITIES, TISSUE_SIGNAL
from nnunet_fedmepd.demo_data.streams import start_site_stream

# The institutions of the BraTS 2018 case names, the default names of the sites in this order.
BRATS2018_INSTITUTIONS = (
    *("CBICA", "2013", "TCIA01", "TCIA02", "TCIA03", "TCIA04", "TCIA05", "TCIA06"),
    *("TCIA08", "TCIA09", "TCIA10", "TCIA12", "TCIA13", "TMC"),
)


@dataclass(frozen=True)
class ModalityScanner:
    """How a site acquires one modality.

    Args:
        scale: grey values per unit of signal.
        gamma: exponent of the contrast curve.
        noise: standard deviation of the Rician noise, as a share of 1000 units, at 1 mm voxels.
        bias: standard deviation of the logarithm of the bias field.
        blur_mm: standard deviation of the point spread function.
        slice_blur_mm: additional one along Z (thick slices).
        tissue_gain: factor on the signal of each tissue.
        lesion_gain: factor on the signal of each lesion.
    """

    scale: float
    gamma: float
    noise: float
    bias: float
    blur_mm: float
    slice_blur_mm: float
    tissue_gain: Mapping[str, float]
    lesion_gain: Mapping[str, float]


@dataclass(frozen=True)
class Site:
    """A site's patients and scanners.

    Args:
        index: place in the list of sites; the random streams of its cases depend on it, not on the name.
        name: the site's name.
        high_grade_share: probability that a tumour is of high grade.
        tumour_size_factor: factor on the tumour radius.
        oedema_factor: factor on the reach of the oedema.
        age: mean of its patients' ages, 0 (youngest) to 1 (oldest).
        scanners: modality -> how it is acquired.
    """

    index: int
    name: str
    high_grade_share: float
    tumour_size_factor: float
    oedema_factor: float
    age: float
    scanners: Mapping[str, ModalityScanner]


def default_site_name(index: int) -> str:
    """Return the name of site `index`: a BraTS 2018 institution, or `SYN14` and on when those are used up."""
    return BRATS2018_INSTITUTIONS[index] if index < len(BRATS2018_INSTITUTIONS) else f"SYN{index:02d}"


def draw_site(seed: int, index: int, heterogeneity: float, name: str | None = None) -> Site:
    """Return site `index`; with heterogeneity 0 they differ in grey value scale and slice blur only."""
    rng = start_site_stream(seed, index)

    def deviate(sd: float) -> float:
        return float(rng.normal(0, sd * heterogeneity))

    return Site(
        index=index,
        name=default_site_name(index) if name is None else name,
        high_grade_share=float(np.clip(0.72 + deviate(0.16), 0.35, 0.95)),
        tumour_size_factor=float(np.exp(deviate(0.12))),
        oedema_factor=float(np.exp(deviate(0.18))),
        age=float(np.clip(0.5 + deviate(0.25), 0, 1)),
        scanners={modality: _draw_scanner(rng, heterogeneity) for modality in MODALITIES},
    )


def _draw_scanner(rng: np.random.Generator, heterogeneity: float) -> ModalityScanner:
    def deviate(sd: float) -> float:
        return float(rng.normal(0, sd * heterogeneity))

    return ModalityScanner(
        scale=float(np.exp(rng.uniform(np.log(0.25), np.log(3.0)))),
        gamma=float(np.exp(deviate(0.10))),
        noise=float(np.clip(0.024 * np.exp(deviate(0.30)), 0.01, 0.05)),
        bias=float(np.clip(0.10 + abs(deviate(0.06)), 0.03, 0.3)),
        blur_mm=float(np.clip(0.55 + abs(deviate(0.35)), 0.3, 1.6)),
        slice_blur_mm=_draw_slice_blur_mm(rng, heterogeneity),
        tissue_gain={tissue: float(np.exp(deviate(0.06))) for tissue in TISSUE_SIGNAL},
        lesion_gain={lesion: float(np.exp(deviate(0.07))) for lesion in LESION_SIGNAL},
    )


def _draw_slice_blur_mm(rng: np.random.Generator, heterogeneity: float) -> float:
    if rng.random() < 0.5:
        return 0.5
    return float(np.clip(0.8 + 1.2 * rng.random() * heterogeneity, 0.5, 2.2))
