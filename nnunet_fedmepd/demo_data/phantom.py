"""One synthetic patient: four images, the label map, and what is known about the patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int16, UInt8

from nnunet_fedmepd.demo_data.anatomy import Anatomy, build_anatomy, sample_tissues
from nnunet_fedmepd.demo_data.atlas import load_atlas
from nnunet_fedmepd.demo_data.composition import compose_core
from nnunet_fedmepd.demo_data.confounders import draw_confounders
from nnunet_fedmepd.demo_data.contrast import MODALITIES
from nnunet_fedmepd.demo_data.head import draw_displacement, draw_head
from nnunet_fedmepd.demo_data.lattice import Lattice, Mask
from nnunet_fedmepd.demo_data.oedema import spread_oedema
from nnunet_fedmepd.demo_data.scanner import acquire
from nnunet_fedmepd.demo_data.signal import Patient, draw_levels, draw_textures, render_signal
from nnunet_fedmepd.demo_data.sites import Site
from nnunet_fedmepd.demo_data.streams import CaseStreams, Step
from nnunet_fedmepd.demo_data.tumour import (
    TumourPlan,
    TumourSeat,
    draw_tumour,
    find_origins,
    find_seat,
    grow_core,
)
from nnunet_fedmepd.modalities import BRATS_LABELS

_SMALLEST_ENHANCING_MM3 = 60


@dataclass(frozen=True)
class PhantomSettings:
    """What one case is made of, beside its site and its number.

    Args:
        shape: voxels along X, Y and Z.
        spacing_mm: edge of the cubic voxels.
        confounders: strength of vessels, choroid plexus, meninges and white-matter lesions; 1 is usual.
        mass_effect: factor on how far tumours push the brain aside; 1 is usual.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    confounders: float = 1.0
    mass_effect: float = 1.0


@dataclass(frozen=True)
class PatientRecord:
    """What is known about a patient; volumes in millilitres.

    Args:
        grade: `HGG` or `LGG`.
        ncr_ml, ed_ml, et_ml: volumes of necrotic and non-enhancing core, oedema and enhancing tumour.
        brain_ml: volume of the brain.
        radius_mm: radius of the tumour core, before noise.
        mass_effect: largest displacement, as a share of the distance to the tumour's centre.
        age01: 0 (youngest) to 1 (oldest).
    """

    grade: str
    ncr_ml: float
    ed_ml: float
    et_ml: float
    brain_ml: int
    radius_mm: float
    mass_effect: float
    age01: float


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """A synthetic case.

    Args:
        images: modality -> image; all brain voxels are at least 1, all others 0.
        labels: label map with the values of `BRATS_LABELS`.
        record: what is known about the patient.
    """

    images: dict[str, Int16[np.ndarray, "Z Y X"]]
    labels: UInt8[np.ndarray, "Z Y X"]
    record: PatientRecord


def make_case(seed: int, site: Site, case_index: int, settings: PhantomSettings) -> PhantomCase:
    """Make one case; it depends on the seed, the site, the case's index and the settings alone.

    Raises:
        ConfigurationError: the image is too small or too coarse to place a tumour.
    """
    streams = CaseStreams(seed, site.index, case_index)
    lattice = Lattice.of_image(settings.shape, settings.spacing_mm)
    patient = _make_patient(streams, lattice, site, settings)
    labels = _paint_labels(patient, lattice)
    images = _make_images(streams.start(Step.IMAGES), lattice, site, patient)
    return PhantomCase(images, lattice.embed(labels), _describe(patient, labels, lattice))


def _make_patient(streams: CaseStreams, lattice: Lattice, site: Site, settings: PhantomSettings) -> Patient:
    anatomy, plan, seat = _make_anatomy(streams, lattice, site, settings.mass_effect)
    core = grow_core(streams.start(Step.CORE_SHAPE), lattice, plan, seat, anatomy)
    composition = compose_core(streams.start(Step.COMPOSITION), lattice, core)
    oedema = spread_oedema(streams.start(Step.OEDEMA), lattice, core, anatomy, site)
    rng = streams.start(Step.CONFOUNDERS)
    confounders = draw_confounders(rng, lattice, anatomy, core, oedema, settings.confounders)
    return Patient(anatomy, core, composition, oedema, confounders)


def _make_anatomy(
    streams: CaseStreams, lattice: Lattice, site: Site, mass_effect: float
) -> tuple[Anatomy, TumourPlan, TumourSeat]:
    """Sample the brain twice: first to find the tumour's place in it, then as the tumour has pushed it aside."""
    rng, atlas = streams.start(Step.HEAD), load_atlas()
    head = draw_head(rng, atlas, lattice.half_field_of_view_mm, site.age)
    displacement_mm = draw_displacement(streams.start(Step.DISPLACEMENT), lattice)
    plan = draw_tumour(rng, site, mass_effect)
    undisturbed = sample_tissues(lattice.points_mm, displacement_mm, head, atlas)
    seat = find_seat(plan, undisturbed, lattice)
    tissues = sample_tissues(find_origins(lattice, plan, seat), displacement_mm, head, atlas)
    anatomy = build_anatomy(streams.start(Step.BRAIN_SURFACE), lattice, tissues, head.age)
    return anatomy, plan, seat


def _make_images(
    rng: np.random.Generator, lattice: Lattice, site: Site, patient: Patient
) -> dict[str, Int16[np.ndarray, "Z Y X"]]:
    textures = draw_textures(rng, lattice)
    images = {}
    for modality in MODALITIES:
        scanner = site.scanners[modality]
        levels = draw_levels(rng, modality, scanner, high_grade=patient.core.plan.high_grade)
        signal = render_signal(rng, lattice, modality, patient, levels, textures)
        images[modality] = lattice.embed(acquire(rng, lattice, signal, patient.anatomy.brain, scanner))
    return images


def _paint_labels(patient: Patient, lattice: Lattice) -> UInt8[np.ndarray, "z y x"]:
    brain = patient.anatomy.brain
    labels = np.zeros(brain.shape, np.uint8)
    labels[patient.oedema.mask] = BRATS_LABELS["edema"]
    labels[patient.core.mask & brain] = BRATS_LABELS["necrotic_core"]
    enhancing = patient.composition.enhancing_mask(patient.core) & brain
    # fewer are taken for noise, as BraTS participants do with their predictions
    if enhancing.sum() * lattice.voxel_volume_mm3 >= _SMALLEST_ENHANCING_MM3:
        labels[enhancing] = BRATS_LABELS["enhancing_tumor"]
    return labels


def _describe(patient: Patient, labels: UInt8[np.ndarray, "z y x"], lattice: Lattice) -> PatientRecord:
    def measure_ml(mask: Mask) -> float:
        return float(mask.sum() * lattice.voxel_volume_mm3 / 1000)

    plan = patient.core.plan
    return PatientRecord(
        grade=plan.grade,
        ncr_ml=round(measure_ml(labels == BRATS_LABELS["necrotic_core"]), 2),
        ed_ml=round(measure_ml(labels == BRATS_LABELS["edema"]), 2),
        et_ml=round(measure_ml(labels == BRATS_LABELS["enhancing_tumor"]), 2),
        brain_ml=round(measure_ml(patient.anatomy.brain)),
        radius_mm=round(plan.radius_mm, 1),
        mass_effect=round(plan.mass_effect, 2),
        age01=round(patient.anatomy.age, 2),
    )
