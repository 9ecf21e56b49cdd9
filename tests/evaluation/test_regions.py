"""Which regions are scored."""

from __future__ import annotations

from nnunet_fedmepd.evaluation.regions import ignore_label, scored_regions
from nnunet_fedmepd.modalities import BRATS_LABELS, BRATS_REGIONS


def test_labels_of_brats_are_scored_as_its_three_regions() -> None:
    assert scored_regions({"labels": {**BRATS_LABELS, "ignore": 4}}) == BRATS_REGIONS


def test_declared_regions_are_scored_as_declared() -> None:
    labels = {"background": 0, "tumour": [1, 2], "core": [2]}
    assert scored_regions({"labels": labels}) == {"tumour": (1, 2), "core": (2,)}


def test_of_other_labels_each_is_scored() -> None:
    assert scored_regions({"labels": {"background": 0, "liver": 1, "lesion": 2}}) == {"liver": (1,), "lesion": (2,)}


def test_the_ignore_label_is_no_region() -> None:
    description = {"labels": {"background": 0, "liver": 1, "ignore": 2}}
    assert scored_regions(description) == {"liver": (1,)}
    assert ignore_label(description) == 2
    assert ignore_label({"labels": {"background": 0, "liver": 1}}) is None
