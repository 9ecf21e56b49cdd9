from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_fedmepd.demo_data.generate import generate
from nnunet_fedmepd.demo_data.settings import DemoDataSettings
from nnunet_fedmepd.errors import ConfigurationError

ROOT = "MICCAI_BraTS2020_TrainingData"


def read_table(out: Path) -> list[dict[str, str]]:
    with (out / "site_mapping.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_voxels(file: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def read_all(out: Path) -> dict[str, np.ndarray]:
    """All images and label maps of a data set, by relative path."""
    return {str(file.relative_to(out)): read_voxels(file) for file in sorted(out.rglob("*.nii.gz"))}


def list_modification_times(out: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in out.rglob("*.nii.gz")}


def test_the_table_lists_case_site_and_split(made: Path) -> None:
    listed = [(row["case"], row["site"], row["split"]) for row in read_table(made)]
    assert listed == [
        ("BraTS20_Training_001", "CBICA", "train"),
        ("BraTS20_Training_002", "CBICA", "train"),
        ("BraTS20_Training_003", "CBICA", "test"),
        ("BraTS20_Training_004", "2013", "train"),
        ("BraTS20_Training_005", "2013", "test"),
    ]


def test_a_case_has_its_four_modalities_and_labels_in_one_geometry(made: Path) -> None:
    folder = made / ROOT / "BraTS20_Training_001"
    names = sorted(file.name for file in folder.iterdir())
    suffixes = ("flair", "seg", "t1", "t1ce", "t2")
    assert names == [f"BraTS20_Training_001_{suffix}.nii.gz" for suffix in suffixes]
    for file in folder.iterdir():
        image = SimpleITK.ReadImage(str(file))
        assert image.GetSize() == (25, 30, 26)
        assert image.GetSpacing() == (4, 4, 4)
        assert image.GetOrigin() == (0, -29 * 4, 0)


def test_volumes_in_the_table_are_those_of_the_label_map(made: Path) -> None:
    for row in read_table(made):
        labels = read_voxels(made / row["folder"] / f"{row['case']}_seg.nii.gz")
        for column, value in (("ncr_ml", 1), ("ed_ml", 2), ("et_ml", 4)):
            assert float(row[column]) == pytest.approx((labels == value).sum() * 0.064, abs=0.005)


def test_all_modalities_show_the_same_brain_and_the_tumour_lies_in_it(made: Path) -> None:
    for row in read_table(made):
        files = [made / row["folder"] / f"{row['case']}_{m}.nii.gz" for m in ("flair", "t1", "t1ce", "t2")]
        brains = [read_voxels(file) > 0 for file in files]
        labels = read_voxels(made / row["folder"] / f"{row['case']}_seg.nii.gz")
        assert all((brain == brains[0]).all() for brain in brains)
        assert labels.any()
        assert brains[0][labels > 0].all()


def test_the_brats_2020_table_of_names_links_the_years(made: Path) -> None:
    with (made / ROOT / "name_mapping.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[3]["BraTS_2018_subject_ID"] == "Brats18_2013_1_1"
    assert rows[3]["BraTS_2020_subject_ID"] == "BraTS20_Training_004"
    assert [row["Grade"] for row in rows] == [row["grade"] for row in read_table(made)]


def test_the_settings_are_stored(made: Path) -> None:
    stored = json.loads((made / "demo_data.json").read_text(encoding="utf-8"))
    assert stored["synthetic"] is True
    assert stored["shape"] == [25, 30, 26]
    assert stored["cases_per_site"] == [3, 2]
    assert [site["name"] for site in stored["site_properties"]] == ["CBICA", "2013"]


def test_a_case_depends_on_seed_site_and_index_alone(made: Path, two_sites: DemoDataSettings, tmp_path: Path) -> None:
    fewer = replace(two_sites, cases_per_site=(1, 1), test_per_site=0, site_names=("A", "B"))
    generate(tmp_path / "fewer", fewer, workers=1)
    whole, part = read_all(made), read_all(tmp_path / "fewer")
    for modality in ("flair", "t1", "t1ce", "t2", "seg"):
        second_site = part[f"{ROOT}/BraTS20_Training_002/BraTS20_Training_002_{modality}.nii.gz"]
        np.testing.assert_array_equal(
            second_site, whole[f"{ROOT}/BraTS20_Training_004/BraTS20_Training_004_{modality}.nii.gz"]
        )


def test_another_seed_makes_other_cases(made: Path, two_sites: DemoDataSettings, tmp_path: Path) -> None:
    other = replace(two_sites, seed=2, sites=1, cases_per_site=1, test_per_site=0)
    generate(tmp_path / "other", other, workers=1)
    whole, part = read_all(made), read_all(tmp_path / "other")
    assert all((part[name] != whole[name]).any() for name in part)


def test_several_workers_make_the_same_data(made: Path, two_sites: DemoDataSettings, tmp_path: Path) -> None:
    generate(tmp_path / "parallel", two_sites, workers=2)
    expected, parallel = read_all(made), read_all(tmp_path / "parallel")
    assert expected.keys() == parallel.keys()
    assert all((expected[name] == parallel[name]).all() for name in expected)
    assert read_table(made) == read_table(tmp_path / "parallel")


def test_a_finished_data_set_is_left_alone(made: Path, two_sites: DemoDataSettings) -> None:
    before = list_modification_times(made)
    assert generate(made, two_sites, workers=1) == made / "site_mapping.csv"
    assert list_modification_times(made) == before


def test_an_interrupted_generation_is_completed(made: Path, two_sites: DemoDataSettings, tmp_path: Path) -> None:
    """Killed amid the third case's files and before the fourth's record; a file of the fifth got lost."""
    out = tmp_path / "interrupted"
    shutil.copytree(made, out)
    third, fourth, fifth = (f"BraTS20_Training_00{k}" for k in (3, 4, 5))
    (out / ROOT / third).rename(out / f".{third}.partial")
    (out / "case_records" / f"{third}.json").unlink()
    (out / "case_records" / f"{fourth}.json").unlink()
    (out / ROOT / fifth / f"{fifth}_t2.nii.gz").unlink()
    (out / "site_mapping.csv").unlink()
    complete = {file: time for file, time in list_modification_times(out).items() if file.parent.name[-1] in "12"}

    generate(out, two_sites, workers=1)

    expected, completed = read_all(made), read_all(out)
    assert expected.keys() == completed.keys()
    assert all((expected[name] == completed[name]).all() for name in expected)
    assert read_table(out) == read_table(made)
    assert complete.items() <= list_modification_times(out).items()
    assert len(complete) == 10


def test_other_settings_in_the_same_folder_are_an_error_that_names_file_and_difference(
    made: Path, two_sites: DemoDataSettings
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        generate(made, replace(two_sites, confounders=0.5), workers=1)
    assert str(made / "demo_data.json") in str(caught.value)
    assert "different: confounders." in str(caught.value)


def test_an_unreadable_settings_file_is_named(two_sites: DemoDataSettings, tmp_path: Path) -> None:
    (tmp_path / "demo_data.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"demo_data\.json cannot be read as JSON"):
        generate(tmp_path, two_sites, workers=1)


def test_a_folder_with_other_content_is_never_touched(two_sites: DemoDataSettings, tmp_path: Path) -> None:
    real = tmp_path / ROOT / "BraTS20_Training_001"
    real.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="found other content"):
        generate(tmp_path, two_sites, workers=1)
    assert [file.name for file in tmp_path.iterdir()] == [ROOT]
    assert real.is_dir()


def test_at_least_one_worker_is_needed(two_sites: DemoDataSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="workers: expected at least 1; found 0"):
        generate(tmp_path / "none", two_sites, workers=0)
    assert not (tmp_path / "none").exists()
