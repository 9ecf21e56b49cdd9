"""Predictions back to the labels of a release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataset_conversion import convert_predictions
from nnunet_fedmepd.errors import ConfigurationError, DatasetError
from tests.dataset_conversion.small_release import grid, label_voxels, read_voxels, volume, write

CASE = "BraTS20_Training_001"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """A folder as nnU-Net leaves it: a prediction, its probabilities and the settings."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    write(volume(label_voxels([0, 1, 2, 3, 3])), folder / f"{CASE}.nii.gz")
    (folder / f"{CASE}.npz").touch()
    (folder / "plans.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("layout", "theirs"),
    [
        ("brats2018", [0, 1, 2, 4, 4]),
        ("brats2020", [0, 1, 2, 4, 4]),
        ("brats2021", [0, 1, 2, 4, 4]),
        ("brats2023", [0, 1, 2, 3, 3]),
    ],
)
def test_labels_become_those_of_the_release_and_name_and_grid_stay(
    predictions: Path, tmp_path: Path, layout: str, theirs: list[int]
) -> None:
    (file,) = convert_predictions(layout, predictions, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{CASE}.nii.gz"]
    np.testing.assert_array_equal(read_voxels(file), label_voxels(theirs))
    assert grid(file) == grid(predictions / f"{CASE}.nii.gz")


def test_several_workers_convert_every_prediction(predictions: Path, tmp_path: Path) -> None:
    write(volume(label_voxels([3])), predictions / "BraTS20_Training_002.nii.gz")
    files = convert_predictions("brats2020", predictions, tmp_path / "out", workers=2)
    assert [read_voxels(file).max() for file in files] == [4, 4]


def test_unknown_label_is_refused_and_nothing_is_written(predictions: Path, tmp_path: Path) -> None:
    file = write(volume(label_voxels([4, 5, 5])), predictions / "BraTS20_Training_002.nii.gz")
    message = rf"Unknown label value\n  case: BraTS20_Training_002\n  file: {file}\n  expected: only 0, 1, 2, 3\n"
    with pytest.raises(DatasetError, match=message + r"  found: 4 \(1 voxels\), 5 \(2 voxels\)"):
        convert_predictions("brats2020", predictions, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["predictions"]


def test_truncated_prediction_is_refused(predictions: Path, tmp_path: Path) -> None:
    file = predictions / f"{CASE}.nii.gz"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DatasetError, match=rf"Unreadable or truncated volume\n  case: {CASE}\n"):
        convert_predictions("brats2020", predictions, tmp_path / "out")


def test_output_that_exists_already_is_refused(predictions: Path) -> None:
    with pytest.raises(DatasetError, match=rf"The output exists already\n  file: {predictions}\n"):
        convert_predictions("brats2020", predictions, predictions)


@pytest.mark.parametrize("made", [True, False])
def test_folder_without_predictions_is_refused(tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "empty").mkdir()
    with pytest.raises(
        DatasetError, match=rf"No prediction\n.*empty\n(.*\n)  found: no such {'file' if made else 'fo'}"
    ):
        convert_predictions("brats2020", tmp_path / "empty", tmp_path / "out")


def test_unknown_layout_is_refused(predictions: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Unknown BraTS layout 'brats'"):
        convert_predictions("brats", predictions, tmp_path / "out")
