"""Patients that come with several time points."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataset_conversion import SiteAssignment, convert_brats, find_layout
from dataset_conversion.patients import check_patients, patient_folds
from dataset_conversion.splits import hold_out
from nnunet_fedmepd.errors import DatasetError
from tests.dataset_conversion.small_release import SmallRelease

LAYOUT = find_layout("brats2023")


def case(patient: int, time: int = 0) -> str:
    return f"BraTS-GLI-{patient:05d}-{time:03d}"


@pytest.mark.parametrize(
    ("sites", "found"),
    [
        ([SiteAssignment("a", (case(1),), (case(1, 1),))], "in test of site a, .* in train of site a"),
        ([SiteAssignment("a", (case(1),)), SiteAssignment("b", (case(2),), (case(1, 1),))], "in test of site b, .* of"),
        ([SiteAssignment("a", (case(1), case(1, 1)), validation=(case(1, 1),))], "in val of site a, .* in train"),
    ],
)
def test_a_patient_in_two_splits_is_refused(sites: list[SiteAssignment], found: str) -> None:
    with pytest.raises(DatasetError, match=f"two splits\n  case: {case(1, 1)}\n(.*\n)*  found: {case(1, 1)} {found}"):
        check_patients(sites, LAYOUT)


def test_a_patient_may_train_at_two_sites_and_be_held_out_with_all_cases() -> None:
    check_patients([SiteAssignment("a", (case(1),)), SiteAssignment("b", (case(1, 1),))], LAYOUT)
    everybody = tuple(case(patient, time) for patient in range(8) for time in range(2))
    check_patients(hold_out([SiteAssignment("a", everybody)], 0.4, 1, LAYOUT), LAYOUT)


def test_folds_keep_patients_together_and_hold_everybody_out_once() -> None:
    site = SiteAssignment("a", tuple(case(patient, time) for patient in range(7) for time in range(1 + patient % 3)))
    folds = patient_folds(site, LAYOUT)
    assert len(folds) == 5
    for fold in folds:
        assert not {LAYOUT.patient(name) for name in fold["train"]} & {LAYOUT.patient(name) for name in fold["val"]}
        assert sorted(fold["train"] + fold["val"]) == sorted(site.training)
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(site.training)


def test_few_patients_give_few_folds_and_single_cases_are_left_to_nnunet() -> None:
    assert len(patient_folds(SiteAssignment("a", (case(1), case(1, 1), case(2))), LAYOUT)) == 2
    assert patient_folds(SiteAssignment("a", (case(1), case(2))), LAYOUT) == []
    assert patient_folds(SiteAssignment("a", (case(1), case(1, 1))), LAYOUT) == []


def test_a_conversion_writes_these_folds(tmp_path: Path, raw: Path) -> None:
    release = SmallRelease(tmp_path / "source", "brats2023")
    for name in (case(1), case(1, 1), case(2)):
        release.add(name)
    (dataset,) = convert_brats("brats2023", tmp_path / "source", raw)
    folds = json.loads((dataset / "splits_final.json").read_text())
    assert sorted(fold["val"] for fold in folds) == [[case(1), case(1, 1)], [case(2)]]
