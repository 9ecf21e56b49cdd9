"""The commands `fedmepd convert`, `convert-back` and `fill-missing`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_fedmepd.cli import main
from tests.dataset_conversion.small_release import SmallRelease, label_voxels, read_voxels, volume, write

CASES = [f"BraTS20_Training_{n:03d}" for n in (1, 2, 130, 131)]


@pytest.fixture(autouse=True)
def four_cases(release: SmallRelease) -> None:
    for case in CASES:
        release.add(case)


def written(dataset: Path) -> tuple[str, list[str], int, int]:
    """Return name, channels, number of training cases, number of test cases."""
    description = json.loads((dataset / "dataset.json").read_text())
    channels = list(description["channel_names"].values())
    tests = len(list((dataset / "labelsTs").glob("*")))
    return dataset.name, channels, description["numTraining"], tests


def test_convert_splits_by_a_table_and_says_what_it_wrote(
    release: SmallRelease, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "sites.csv"
    table.write_text("case,site\n" + "".join(f"{case},{site}\n" for case, site in zip(CASES, "aabb", strict=True)))
    arguments = ["--split", str(table), "--modalities", "b=T1ce,T2", "--first-id", "600", "--test-fraction", "0.5"]
    assert main(["convert", "brats2020", str(release.root), "--out", str(raw), *arguments, "--workers", "1"]) == 0
    a, b = sorted(raw.iterdir())
    assert written(a) == ("Dataset600_BraTS2020_a", ["T1", "T1ce", "T2", "FLAIR"], 1, 1)
    assert written(b) == ("Dataset601_BraTS2020_b", ["T1ce", "T2"], 1, 1)
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].endswith(
        "1 training cases, 1 test cases (1 with segmentation), T1ce+T2, 0 scans absent"
    )


def test_convert_writes_one_dataset_to_nnunets_folder_by_default(
    release: SmallRelease, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(raw))
    assert main(["convert", "brats2020", str(release.root), "--regions", "--workers", "1"]) == 0
    (dataset,) = raw.iterdir()
    assert written(dataset) == ("Dataset500_BraTS2020_all", ["T1", "T1ce", "T2", "FLAIR"], 4, 0)
    assert "regions_class_order" in (dataset / "dataset.json").read_text()


def test_convert_needs_an_output_folder(
    release: SmallRelease, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert main(["convert", "brats2020", str(release.root)]) == 2
    assert "No output folder: give --out, or set nnUNet_raw" in capsys.readouterr().err


def test_convert_by_the_published_split_misses_the_sites_that_have_no_case(
    release: SmallRelease, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "brats2020", str(release.root), "--split", "paper", "--out", str(raw)]) == 2
    assert "Site c2 has no training case" in capsys.readouterr().err
    assert not raw.exists()


def test_convert_by_institution_makes_a_dataset_of_each(tmp_path: Path, raw: Path) -> None:
    release = SmallRelease(tmp_path / "2018" / "HGG", "brats2018")
    release.add("Brats18_CBICA_AAB_1")
    release.add("Brats18_TCIA01_131_1")
    source = str(tmp_path / "2018")
    assert main(["convert", "brats2018", source, "--split", "institution", "--out", str(raw), "--workers", "1"]) == 0
    names = [path.name for path in sorted(raw.iterdir())]
    assert names == ["Dataset500_BraTS2018_CBICA", "Dataset501_BraTS2018_TCIA01"]


def test_convert_back_restores_the_labels_of_the_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "predictions").mkdir()
    write(volume(label_voxels([3])), tmp_path / "predictions" / f"{CASES[0]}.nii.gz")
    folders = [str(tmp_path / "predictions"), str(tmp_path / "out")]
    assert main(["convert-back", "brats2020", *folders, "--workers", "1"]) == 0
    assert read_voxels(tmp_path / "out" / f"{CASES[0]}.nii.gz").max() == 4
    assert "1 predictions with the labels of brats2020" in capsys.readouterr().out


def test_fill_missing_completes_cases_for_a_converted_dataset(
    release: SmallRelease, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["convert", "brats2020", str(release.root), "--out", str(raw), "--workers", "1"])
    (tmp_path / "new").mkdir()
    write(volume(label_voxels([9])), tmp_path / "new" / "case_0002.nii.gz")
    description = raw / "Dataset500_BraTS2020_all" / "dataset.json"
    assert main(["fill-missing", str(tmp_path / "new"), "--dataset-json", str(description)]) == 0
    assert "case: T1, T1ce, FLAIR written as blank" in capsys.readouterr().out
    assert len(list((tmp_path / "new").iterdir())) == 4
