"""Blank images for scans that cases to predict lack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataset_conversion.blank import fill_missing
from nnunet_fedmepd.errors import DatasetError
from tests.dataset_conversion.small_release import grid, read_voxels, scan_voxels, volume, write


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Case `a` with CT and PET but no MR; case `b`, whose name ends like a channel, with MR only."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "a_0000", "a_0002", "b_0001_0001":
        write(volume(scan_voxels(name)), folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def description(tmp_path: Path) -> Path:
    file = tmp_path / "dataset.json"
    channels = {"2": "PET", "0": "CT", "1": "MR"}
    file.write_text(json.dumps({"channel_names": channels, "file_ending": ".nii.gz"}))
    return file


def test_missing_channels_become_blank_images_on_the_grid_of_their_case(images: Path, description: Path) -> None:
    before = (images / "a_0000.nii.gz").read_bytes()
    assert fill_missing(images, description) == {"a": ["MR"], "b_0001": ["CT", "PET"]}
    assert sorted(path.name for path in images.iterdir()) == [
        *(f"a_000{channel}.nii.gz" for channel in range(3)),
        *(f"b_0001_000{channel}.nii.gz" for channel in range(3)),
    ]
    for blank in "a_0001", "b_0001_0000", "b_0001_0002":
        assert not read_voxels(images / f"{blank}.nii.gz").any()
        assert grid(images / f"{blank}.nii.gz") == grid(images / "a_0000.nii.gz")
    assert (images / "a_0000.nii.gz").read_bytes() == before


def test_complete_cases_stay_as_they_are(images: Path, description: Path) -> None:
    fill_missing(images, description)
    assert fill_missing(images, description) == {}


def test_rest_of_a_killed_run_is_removed(images: Path, description: Path) -> None:
    (images / ".fill-missing.partial").mkdir()
    (images / ".fill-missing.partial" / "a_0001.nii.gz").write_bytes(b"half")
    fill_missing(images, description)
    assert len(list(images.iterdir())) == 6


@pytest.mark.parametrize(("name", "found"), [("empty", "no such image"), ("nowhere", "no such folder")])
def test_folder_without_any_image_is_refused(tmp_path: Path, description: Path, name: str, found: str) -> None:
    (tmp_path / "empty").mkdir()
    message = (
        rf"No image to take the geometry from\n.*{name}\n.*_0000.nii.gz ... <case>_0002.nii.gz.*\n  found: {found}"
    )
    with pytest.raises(DatasetError, match=message):
        fill_missing(tmp_path / name, description)


@pytest.mark.parametrize(("name", "found"), [("a_0003", r"_0003\.nii\.gz"), ("scan", r"scan\.nii\.gz")])
def test_image_of_a_channel_that_the_dataset_does_not_have_is_refused(
    images: Path, description: Path, name: str, found: str
) -> None:
    file = write(volume(scan_voxels("any")), images / f"{name}.nii.gz")
    expected = r"_0000.nii.gz \(CT\), _0001.nii.gz \(MR\), _0002.nii.gz \(PET\)"
    with pytest.raises(DatasetError, match=rf"file: {file}\n  expected: {expected}\n  found: {found}"):
        fill_missing(images, description)
    assert len(list(images.iterdir())) == 4


def test_images_of_a_case_on_two_grids_are_refused(images: Path, description: Path) -> None:
    write(volume(scan_voxels("any")[:-1]), images / "a_0002.nii.gz")
    with pytest.raises(DatasetError, match=r"Different shape within a case\n  case: a\n.*a_0002.nii.gz\n.*\(8, 9, 7\)"):
        fill_missing(images, description)


def test_unreadable_image_is_refused(images: Path, description: Path) -> None:
    (images / "a_0002.nii.gz").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"Unreadable image\n  case: a\n  file: .*a_0002.nii.gz"):
        fill_missing(images, description)


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"channel_names": {"x": "CT"}, "file_ending": ".nii.gz"}'])
def test_description_of_another_form_is_refused(images: Path, description: Path, content: str) -> None:
    description.write_text(content)
    with pytest.raises(DatasetError, match=r"Not a dataset description\n.*dataset.json\n  expected: nnU-Net's"):
        fill_missing(images, description)
