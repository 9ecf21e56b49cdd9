"""The signal of a case in one modality, before the scanner: tissues, confounders, oedema and core, in this order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_fedmepd.demo_data.anatomy import Anatomy
from nnunet_fedmepd.demo_data.composition import Composition
from nnunet_fedmepd.demo_data.confounders import Confounders
from nnunet_fedmepd.demo_data.contrast import LESION_SIGNAL, MODALITIES, TISSUE_SIGNAL
from nnunet_fedmepd.demo_data.fields import draw_field
from nnunet_fedmepd.demo_data.lattice import F32, Lattice, Volume, soft_step
from nnunet_fedmepd.demo_data.oedema import Oedema
from nnunet_fedmepd.demo_data.sites import ModalityScanner
from nnunet_fedmepd.demo_data.tumour import TumourCore


@dataclass(frozen=True, eq=False)
class Patient:
    """Everything about a patient that the images show; the same for all modalities."""

    anatomy: Anatomy
    core: TumourCore
    composition: Composition
    oedema: Oedema
    confounders: Confounders


@dataclass(frozen=True, eq=False)
class Textures:
    """Fields that vary the signal within a tissue, the same in all modalities, named after their scale in mm."""

    mm4: Volume
    mm7: Volume
    mm14: Volume


@dataclass(frozen=True)
class Levels:
    """The mean signal of each tissue and lesion in one modality of one patient."""

    tissue: dict[str, float]
    lesion: dict[str, float]


def draw_textures(rng: np.random.Generator, lattice: Lattice) -> Textures:
    """Draw the textures of one patient."""
    return Textures(*(draw_field(rng, lattice, scale) for scale in (4.0, 7.0, 14.0)))


def draw_levels(rng: np.random.Generator, modality: str, scanner: ModalityScanner, *, high_grade: bool) -> Levels:
    """Draw the mean signals of one modality: the site's, varied a little from patient to patient."""
    column = MODALITIES.index(modality)
    tissue = {
        name: signal[column] * scanner.tissue_gain[name] * float(np.exp(rng.normal(0, 0.025)))
        for name, signal in TISSUE_SIGNAL.items()
    }
    lesion = {
        name: signal[column] * scanner.lesion_gain[name] * float(np.exp(rng.normal(0, 0.07)))
        for name, signal in LESION_SIGNAL.items()
    }
    if modality == "FLAIR":
        lesion |= _draw_flair_lesions(rng, tissue, lesion)
    if modality == "T1ce":
        lesion |= _draw_t1ce_lesions(rng, tissue, lesion, high_grade=high_grade)
    return Levels(tissue, lesion)


def _draw_flair_lesions(
    rng: np.random.Generator, tissue: dict[str, float], lesion: dict[str, float]
) -> dict[str, float]:
    """On FLAIR necrosis is anything from dark (cystic) to bright; oedema always stands out from white matter."""
    return {
        "necrosis": lesion["necrosis"] * rng.uniform(0.55, 1.35),
        "oedema": max(lesion["oedema"], 1.50 * tissue["white"]),
        "non_enhancing": max(lesion["non_enhancing"], 1.45 * tissue["white"]),
    }


def _draw_t1ce_lesions(
    rng: np.random.Generator, tissue: dict[str, float], lesion: dict[str, float], *, high_grade: bool
) -> dict[str, float]:
    """On T1ce enhancement always stands out from white matter; the non-enhancing part resembles grey matter."""
    enhancing = lesion["enhancing"] * (rng.uniform(0.86, 1.12) * (1 if high_grade else 0.93))
    return {
        "enhancing": max(enhancing, 1.20 * tissue["white"]),
        "non_enhancing": lesion["non_enhancing"] * 0.6 + 0.4 * tissue["grey"],
    }


def render_signal(
    rng: np.random.Generator,
    lattice: Lattice,
    modality: str,
    patient: Patient,
    levels: Levels,
    textures: Textures,
) -> Volume:
    """Return the signal of `modality` at every voxel; the generator serves the flow artefact of FLAIR alone."""
    signal = _render_tissues(patient.anatomy, levels, textures)
    if modality == "FLAIR":
        signal = signal + _draw_flow_artefact(rng, lattice, patient.anatomy)
    signal = _overlay_confounders(signal, patient.confounders, levels)
    signal = _overlay_oedema(signal, patient, levels, textures)
    return _overlay_core(signal, patient, levels, textures)


def _render_tissues(anatomy: Anatomy, levels: Levels, textures: Textures) -> Volume:
    tissue = levels.tissue
    signal = tissue["csf"] * anatomy.csf + tissue["grey"] * anatomy.grey + tissue["white"] * anatomy.white
    return signal * (1 + F32(0.025) * textures.mm14)


def _draw_flow_artefact(rng: np.random.Generator, lattice: Lattice, anatomy: Anatomy) -> Volume:
    """Flowing CSF is not suppressed on FLAIR: bright in places."""
    strength = F32(rng.uniform(0, 320))
    return strength * anatomy.csf * soft_step((draw_field(rng, lattice, 16.0) - F32(1.0)) / F32(0.3))


def _overlay_confounders(signal: Volume, confounders: Confounders, levels: Levels) -> Volume:
    for weight, lesion in (
        (confounders.hyperintensities, "hyperintensity"),
        (confounders.meninges, "meninges"),
        (confounders.choroid, "choroid"),
        (confounders.vessels, "vessel"),
    ):
        signal = signal + weight * (F32(levels.lesion[lesion]) - signal)
    return signal + confounders.lacunes * (F32(levels.tissue["csf"]) - signal)


def _overlay_oedema(signal: Volume, patient: Patient, levels: Levels, textures: Textures) -> Volume:
    """Oedema fades towards its edge and shows less in grey matter."""
    oedema = patient.oedema
    reach_mm = F32(oedema.reach_mm)
    fading = 1 - F32(0.10) * np.clip(1 - (reach_mm - oedema.arrival_mm) / reach_mm, 0, 1)
    level = levels.lesion["oedema"] * (1 + F32(0.06) * textures.mm7 + F32(0.04) * textures.mm4) * fading
    strength = F32(0.93) - F32(0.33) * np.clip(oedema.arrival_mm / reach_mm, 0, 1) - F32(0.30) * patient.anatomy.grey
    return signal + oedema.weight * strength * (level - signal)


def _overlay_core(signal: Volume, patient: Patient, levels: Levels, textures: Textures) -> Volume:
    lesion, composition = levels.lesion, patient.composition
    enhancing = lesion["enhancing"] * (1 + F32(0.10) * textures.mm4 + F32(0.06) * textures.mm7)
    necrosis = lesion["necrosis"] * (1 + F32(0.08) * textures.mm7 + F32(0.05) * textures.mm4)
    non_enhancing = lesion["non_enhancing"] * (1 + F32(0.07) * textures.mm7 + F32(0.05) * textures.mm4)
    core = composition.enhancing * enhancing + composition.non_enhancing * non_enhancing
    core = core + composition.necrosis * necrosis
    core = core + composition.blood * (F32(lesion["blood"]) - core)
    return signal + soft_step(patient.core.depth_mm / F32(0.9)) * (core - signal)
