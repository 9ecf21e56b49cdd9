"""Dice of regions on label maps small enough to count."""

import math

import numpy as np
import pytest

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.modalities import BRATS_REGIONS
from nnunet_fedmepd.nnunet_plugin.region_dice import region_dice
from tests.nnunet_plugin.small_dataset import write_image


def folders(tmp_path, reference, prediction):
    for name, labels in (("reference", reference), ("prediction", prediction)):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "case.nii.gz", np.array(labels).reshape(1, 1, -1))
    return tmp_path / "reference", tmp_path / "prediction"


def test_labels_are_joined_into_regions_before_they_are_compared(tmp_path):
    scores = region_dice(*folders(tmp_path, [1, 2, 3, 0], [3, 2, 0, 0]), BRATS_REGIONS)
    assert scores["case"]["whole_tumor"] == pytest.approx(2 * 2 / (3 + 2))
    assert scores["case"]["tumor_core"] == pytest.approx(2 * 1 / (2 + 1))
    assert scores["case"]["enhancing_tumor"] == 0


def test_a_region_that_neither_has_says_nothing(tmp_path):
    scores = region_dice(*folders(tmp_path, [2, 0], [2, 0]), BRATS_REGIONS)
    assert scores["case"]["whole_tumor"] == 1
    assert math.isnan(scores["case"]["enhancing_tumor"])


def test_nothing_to_score_and_a_missing_reference_are_errors(tmp_path):
    reference, prediction = folders(tmp_path, [1], [1])
    (reference / "case.nii.gz").unlink()
    with pytest.raises(DatasetError, match="A prediction has no reference segmentation"):
        region_dice(reference, prediction, BRATS_REGIONS)
    with pytest.raises(DatasetError, match="There is nothing to score"):
        region_dice(prediction, reference, BRATS_REGIONS)
