"""Dice of folders of label maps small enough to count."""

import numpy as np
import pytest

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.label_maps import mean_dice
from nnunet_fedmepd.modalities import BRATS_REGIONS
from tests.nnunet_plugin.small_dataset import write_image


def folders(tmp_path, *cases):
    for name in ("reference", "prediction"):
        (tmp_path / name).mkdir()
    for i, (reference, prediction) in enumerate(cases):
        for name, labels in (("reference", reference), ("prediction", prediction)):
            write_image(tmp_path / name / f"case{i}.nii.gz", np.array(labels).reshape(1, 1, -1))
    return tmp_path / "reference", tmp_path / "prediction"


def test_labels_are_joined_into_regions_and_cases_are_averaged(tmp_path):
    scores = mean_dice(*folders(tmp_path, ([1, 2, 3, 0], [3, 2, 0, 0]), ([2, 0, 0, 0], [2, 0, 0, 0])), BRATS_REGIONS)
    assert scores == pytest.approx(
        {"whole_tumor": (4 / 5 + 1) / 2, "tumor_core": (2 / 3 + 1) / 2, "enhancing_tumor": (0 + 1) / 2}
    )


def test_a_prediction_of_another_shape_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match=r"case0.nii.gz\n  expected: .*\n  found: "):
        mean_dice(*folders(tmp_path, ([1, 2], [1])), BRATS_REGIONS)


def test_nothing_to_score_and_a_missing_reference_are_errors(tmp_path):
    reference, prediction = folders(tmp_path, ([1], [1]))
    (reference / "case0.nii.gz").unlink()
    with pytest.raises(DatasetError, match="A prediction has no reference segmentation"):
        mean_dice(reference, prediction, BRATS_REGIONS)
    with pytest.raises(DatasetError, match="There is nothing to score"):
        mean_dice(prediction, reference, BRATS_REGIONS)
