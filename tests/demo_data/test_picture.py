from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from nnunet_fedmepd.demo_data.picture import draw_overview
from nnunet_fedmepd.errors import ConfigurationError, DatasetError


def count_coloured_pixels(file: Path) -> int:
    red, green, blue = np.moveaxis(imread(file)[..., :3], -1, 0)
    return int(((abs(red - green) > 0.2) | (abs(green - blue) > 0.2)).sum())


def test_the_picture_grows_by_a_row_a_case(made: Path, tmp_path: Path) -> None:
    heights = [imread(draw_overview(made, tmp_path / f"{n}.png", cases=n)).shape[0] for n in (1, 2, 5, 9)]
    assert heights[0] < heights[1] < heights[2] == heights[3]  # there are five cases
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.png", "2.png", "5.png", "9.png"]


def test_labels_are_drawn_in_colour(made: Path, tmp_path: Path) -> None:
    bare = tmp_path / "without_tumour"
    shutil.copytree(made, bare)
    folder = bare / "MICCAI_BraTS2020_TrainingData" / "BraTS20_Training_001"
    shutil.copy(folder / "BraTS20_Training_001_flair.nii.gz", folder / "BraTS20_Training_001_seg.nii.gz")
    with_tumour = count_coloured_pixels(draw_overview(made, tmp_path / "with.png", cases=1))
    without = count_coloured_pixels(draw_overview(bare, tmp_path / "without.png", cases=1))
    assert with_tumour > without + 100


def test_the_table_stands_for_its_folder(made: Path, tmp_path: Path) -> None:
    by_folder = draw_overview(made, tmp_path / "a.png", cases=1)
    by_table = draw_overview(made / "site_mapping.csv", tmp_path / "b.png", cases=1)
    np.testing.assert_array_equal(imread(by_folder), imread(by_table))


def test_a_folder_without_a_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"site_mapping\.csv"):
        draw_overview(tmp_path, tmp_path / "a.png")


def test_a_missing_image_is_named_with_its_case(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "data")
    next((tmp_path / "data").rglob("BraTS20_Training_001_t2.nii.gz")).unlink()
    with pytest.raises(DatasetError, match=r"case: BraTS20_Training_001\n.*_t2\.nii\.gz"):
        draw_overview(tmp_path / "data", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_only_png_files_are_written(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ends in \.png; found .*a\.jpg"):
        draw_overview(made, tmp_path / "a.jpg")


def test_a_picture_of_no_case_is_an_error(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least 1 case; found 0"):
        draw_overview(made, tmp_path / "a.png", cases=0)
