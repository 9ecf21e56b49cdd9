"""Patients with several time points: whole patients train, choose the model, or test."""

from __future__ import annotations

from collections.abc import Sequence

from sklearn.model_selection import KFold

from dataset_conversion.assignment import SiteAssignment
from dataset_conversion.layouts import Layout
from nnunet_fedmepd.errors import DatasetError

# As nnU-Net's own cross-validation, which divides cases.
_N_FOLDS, _SEED = 5, 12345


def check_patients(sites: Sequence[SiteAssignment], layout: Layout) -> None:
    """Check that no patient is in two splits, at whatever sites: a model would be tested on what it was trained on.

    Raises:
        DatasetError: a patient's cases are in two of train, val and test.
    """
    seen: dict[str, tuple[str, str, str]] = {}
    for site in sites:
        for case in site.cases:
            split = "test" if case in site.test else "val" if case in site.validation else "train"
            other, where, used = seen.setdefault(layout.patient(case), (case, site.name, split))
            if split != used:
                raise DatasetError(
                    "A patient's cases are in two splits",
                    case=case,
                    expected=f"all cases of {layout.patient(case)} for training, for validation, or for testing",
                    found=f"{case} in {split} of site {site.name}, {other} in {used} of site {where}",
                    remedy="give them one split in the table; a test fraction needs a patient's cases at one site",
                )


def patient_folds(site: SiteAssignment, layout: Layout) -> list[dict[str, list[str]]]:
    """Return the folds of a site's training cases, in the form of nnU-Net's `splits_final.json`.

    Chosen validation cases are the only fold. Without any, patients with several cases are divided as nnU-Net divides
    cases; where every patient has one case, or one patient has all, there is no list, and nnU-Net makes its own.
    """
    if site.validation:
        return [_fold(site.training, site.validation)]
    patients = sorted({layout.patient(case) for case in site.training})
    if not 1 < len(patients) < len(site.training):
        return []
    divided = KFold(min(_N_FOLDS, len(patients)), shuffle=True, random_state=_SEED).split(patients)
    held_out = [{patients[i] for i in chosen} for _, chosen in divided]
    return [_fold(site.training, [case for case in site.training if layout.patient(case) in own]) for own in held_out]


def _fold(training: Sequence[str], validation: Sequence[str]) -> dict[str, list[str]]:
    return {"train": sorted(set(training) - set(validation)), "val": sorted(validation)}
