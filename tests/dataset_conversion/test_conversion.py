"""What a conversion writes."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dataset_conversion import SiteAssignment, convert_brats
from tests.dataset_conversion.small_release import (
    SmallRelease,
    grid,
    label_voxels,
    read_voxels,
    scan_voxels,
    volume,
    write,
)

ONE, TWO, THREE = "BraTS20_Training_001", "BraTS20_Training_002", "BraTS20_Training_003"


def description(dataset: Path) -> dict:
    return json.loads((dataset / "dataset.json").read_text())


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize(
    ("layout", "folder", "case", "written"),
    [
        ("brats2018", "HGG", "Brats18_2013_2_1", "Dataset500_BraTS2018_all"),
        ("brats2018", "LGG", "Brats18_TCIA09_141_1", "Dataset500_BraTS2018_all"),
        ("brats2020", "", "BraTS20_Training_001", "Dataset500_BraTS2020_all"),
        ("brats2021", "", "BraTS2021_00000", "Dataset500_BraTS2021_all"),
        ("brats2023", "", "BraTS-GLI-00000-000", "Dataset500_BraTS2023_all"),
        ("brats2023", "", "BraTS-SSA-00002-000", "Dataset500_BraTS2023_all"),
    ],
)
def test_every_layout_becomes_a_dataset_of_four_channels_in_canonical_order(
    layout: str, folder: str, case: str, written: str, tmp_path: Path, raw: Path
) -> None:
    SmallRelease(tmp_path / "source" / folder, layout).add(case)
    assert convert_brats(layout, tmp_path / "source", raw) == [raw / written]
    assert names(raw) == [written]
    assert names(raw / written / "imagesTr") == [f"{case}_000{channel}.nii.gz" for channel in range(4)]
    assert names(raw / written / "labelsTr") == [f"{case}.nii.gz"]
    for channel, modality in enumerate(("T1", "T1ce", "T2", "FLAIR")):
        voxels = read_voxels(raw / written / "imagesTr" / f"{case}_000{channel}.nii.gz")
        np.testing.assert_array_equal(voxels, scan_voxels(case + modality))


def test_file_names_of_each_release_are_those_that_the_challenge_published(tmp_path: Path) -> None:
    def published(layout: str, case: str) -> list[str]:
        release = SmallRelease(tmp_path, layout)
        return [release.scan(case, m).name for m in ("T1", "T1ce", "T2", "FLAIR")] + [release.seg(case).name]

    assert published("brats2018", "Brats18_2013_2_1") == [
        "Brats18_2013_2_1_t1.nii.gz",
        "Brats18_2013_2_1_t1ce.nii.gz",
        "Brats18_2013_2_1_t2.nii.gz",
        "Brats18_2013_2_1_flair.nii.gz",
        "Brats18_2013_2_1_seg.nii.gz",
    ]
    assert published("brats2023", "BraTS-GLI-00000-000") == [
        "BraTS-GLI-00000-000-t1n.nii.gz",
        "BraTS-GLI-00000-000-t1c.nii.gz",
        "BraTS-GLI-00000-000-t2w.nii.gz",
        "BraTS-GLI-00000-000-t2f.nii.gz",
        "BraTS-GLI-00000-000-seg.nii.gz",
    ]


@pytest.mark.parametrize("above", [".", "MICCAI_BraTS2020_TrainingData", "BraTS2020/MICCAI_BraTS2020_TrainingData"])
def test_source_is_the_release_or_a_folder_up_to_two_levels_above_it(above: str, tmp_path: Path, raw: Path) -> None:
    SmallRelease(tmp_path / "source" / above).add(ONE)
    (dataset,) = convert_brats("brats2020", tmp_path / "source", raw)
    assert names(dataset / "labelsTr") == [f"{ONE}.nii.gz"]


def test_folders_that_macos_adds_to_archives_are_no_cases(release: SmallRelease, raw: Path) -> None:
    release.add(ONE)
    shutil.copytree(release.root / ONE, release.root / "__MACOSX" / ONE)
    (dataset,) = convert_brats("brats2020", release.root, raw)
    assert description(dataset)["numTraining"] == 1


@pytest.mark.parametrize(
    ("layout", "case", "theirs"),
    [("brats2020", ONE, [0, 1, 2, 4]), ("brats2023", "BraTS-GLI-00000-000", [0, 1, 2, 3])],
)
def test_labels_become_core_1_edema_2_enhancing_3(
    layout: str, case: str, theirs: list[int], tmp_path: Path, raw: Path
) -> None:
    SmallRelease(tmp_path / "source", layout).add(case, labels=theirs)
    (dataset,) = convert_brats(layout, tmp_path / "source", raw)
    np.testing.assert_array_equal(read_voxels(dataset / "labelsTr" / f"{case}.nii.gz"), label_voxels([0, 1, 2, 3]))


def test_scans_keep_every_byte_and_labels_their_exact_grid(release: SmallRelease, raw: Path) -> None:
    release.add(ONE)
    (dataset,) = convert_brats("brats2020", release.root, raw)
    flair = dataset / "imagesTr" / f"{ONE}_0003.nii.gz"
    assert flair.read_bytes() == release.scan(ONE, "FLAIR").read_bytes()
    assert grid(dataset / "labelsTr" / f"{ONE}.nii.gz") == grid(release.seg(ONE))


def test_segmentation_whose_labels_need_no_change_keeps_every_byte(tmp_path: Path, raw: Path) -> None:
    release = SmallRelease(tmp_path / "source", "brats2023")
    release.add("BraTS-GLI-00000-000")
    write(volume(label_voxels([1, 2, 3]).astype(np.float32)), release.seg("BraTS-GLI-00000-000"))
    (dataset,) = convert_brats("brats2023", release.root, raw)
    written = dataset / "labelsTr" / "BraTS-GLI-00000-000.nii.gz"
    assert written.read_bytes() == release.seg("BraTS-GLI-00000-000").read_bytes()


def test_uncompressed_files_are_compressed_with_header_and_voxels_unchanged(release: SmallRelease, raw: Path) -> None:
    release.add(ONE, ending=".nii")
    (dataset,) = convert_brats("brats2020", release.root, raw)
    written = gzip.decompress((dataset / "imagesTr" / f"{ONE}_0001.nii.gz").read_bytes())
    assert written == release.scan(ONE, "T1ce", ".nii").read_bytes()
    np.testing.assert_array_equal(read_voxels(dataset / "labelsTr" / f"{ONE}.nii.gz"), label_voxels([0, 1, 2, 3]))


def test_case_355_of_2020_has_a_segmentation_of_another_name(release: SmallRelease, raw: Path) -> None:
    folder = release.add("BraTS20_Training_355", without=["seg"])
    write(volume(label_voxels([4, 4, 1])), folder / "W39_1998.09.19_Segm.nii")
    (dataset,) = convert_brats("brats2020", release.root, raw)
    written = read_voxels(dataset / "labelsTr" / "BraTS20_Training_355.nii.gz")
    np.testing.assert_array_equal(written, label_voxels([3, 3, 1]))


def test_site_has_only_its_modalities_in_canonical_order_whatever_it_calls_them(
    release: SmallRelease, raw: Path
) -> None:
    release.add(ONE)
    site = SiteAssignment("north", (ONE,), modalities=("t2-flair", "T1Gd"))
    (dataset,) = convert_brats("brats2020", release.root, raw, [site])
    assert names(dataset / "imagesTr") == [f"{ONE}_0000.nii.gz", f"{ONE}_0001.nii.gz"]
    assert (dataset / "imagesTr" / f"{ONE}_0000.nii.gz").read_bytes() == release.scan(ONE, "T1ce").read_bytes()
    assert description(dataset) == {
        "channel_names": {"0": "T1ce", "1": "FLAIR"},
        "labels": {"background": 0, "necrotic_core": 1, "edema": 2, "enhancing_tumor": 3},
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "fedmepd": {
            "canonical_modalities": ["T1", "T1ce", "T2", "FLAIR"],
            "site": "north",
            "absent_scans": {},
            "converted_from": "brats2020",
        },
    }


def test_regions_are_declared_with_the_order_in_which_they_are_painted(release: SmallRelease, raw: Path) -> None:
    release.add(ONE)
    (dataset,) = convert_brats("brats2020", release.root, raw, regions=True)
    written = description(dataset)
    assert written["labels"] == {
        "background": 0,
        "whole_tumor": [1, 2, 3],
        "tumor_core": [1, 3],
        "enhancing_tumor": [3],
    }
    assert written["regions_class_order"] == [2, 1, 3]


def test_scan_that_a_case_lacks_becomes_a_blank_image_on_its_grid_and_is_recorded(
    release: SmallRelease, raw: Path
) -> None:
    release.add(ONE)
    release.add(TWO, without=["T1", "T2"])
    (dataset,) = convert_brats("brats2020", release.root, raw)
    for channel in (0, 2):
        blank = dataset / "imagesTr" / f"{TWO}_000{channel}.nii.gz"
        assert not read_voxels(blank).any()
        assert grid(blank) == grid(release.scan(TWO, "T1ce"))
    assert description(dataset)["fedmepd"]["absent_scans"] == {TWO: ["T1", "T2"]}


def test_scan_that_is_zero_everywhere_is_recorded_as_absent(release: SmallRelease, raw: Path) -> None:
    release.add(ONE)
    release.add(TWO)
    write(volume(np.zeros_like(scan_voxels("any"))), release.scan(TWO, "FLAIR"))
    (dataset,) = convert_brats("brats2020", release.root, raw)
    assert description(dataset)["fedmepd"]["absent_scans"] == {TWO: ["FLAIR"]}


def test_scan_that_the_site_does_not_have_may_be_missing_or_broken(release: SmallRelease, raw: Path) -> None:
    release.add(ONE, without=["T1"])
    release.scan(ONE, "T2").write_bytes(b"broken")
    site = SiteAssignment("north", (ONE,), modalities=("FLAIR",))
    (dataset,) = convert_brats("brats2020", release.root, raw, [site])
    assert description(dataset)["fedmepd"]["absent_scans"] == {}


def test_held_out_cases_go_to_the_test_folders_and_do_not_count_as_training(release: SmallRelease, raw: Path) -> None:
    release.add(ONE)
    release.add(TWO)
    release.add(THREE, without=["seg"])
    site = SiteAssignment("north", (ONE,), test=(TWO, THREE), modalities=("T2",))
    (dataset,) = convert_brats("brats2020", release.root, raw, [site])
    assert names(dataset / "imagesTr") == [f"{ONE}_0000.nii.gz"]
    assert names(dataset / "labelsTr") == [f"{ONE}.nii.gz"]
    assert names(dataset / "imagesTs") == [f"{TWO}_0000.nii.gz", f"{THREE}_0000.nii.gz"]
    assert names(dataset / "labelsTs") == [f"{TWO}.nii.gz"]
    assert description(dataset)["numTraining"] == 1


def test_validation_cases_are_training_cases_of_a_fold_of_their_own(release: SmallRelease, raw: Path) -> None:
    for case in (ONE, TWO, THREE):
        release.add(case)
    site = SiteAssignment("a", (ONE, TWO), (THREE,), validation=(TWO,))
    (dataset,) = convert_brats("brats2020", release.root, raw, [site])
    assert names(dataset / "labelsTr") == [f"{ONE}.nii.gz", f"{TWO}.nii.gz"]
    assert json.loads((dataset / "splits_final.json").read_text()) == [{"train": [ONE], "val": [TWO]}]


def test_dataset_ids_ascend_from_the_lead_on_and_then_by_site_name(release: SmallRelease, raw: Path) -> None:
    cases = [f"BraTS20_Training_00{n}" for n in range(1, 5)]
    for case in cases:
        release.add(case)
    sites = [SiteAssignment(name, (case,)) for name, case in zip(["c10", "c2", "lead", "a"], cases, strict=True)]
    datasets = convert_brats("brats2020", release.root, raw, sites, first_id=7, prefix="Trial")
    assert [d.name for d in datasets] == [
        "Dataset007_Trial_lead",
        "Dataset008_Trial_a",
        "Dataset009_Trial_c2",
        "Dataset010_Trial_c10",
    ]
    assert names(raw) == [d.name for d in datasets]
    assert description(datasets[3])["fedmepd"]["site"] == "c10"


def test_several_workers_write_the_same_bytes_as_one(release: SmallRelease, tmp_path: Path) -> None:
    release.add(ONE, ending=".nii")
    release.add(TWO, without=["T1"])
    alone, together = (
        convert_brats("brats2020", release.root, tmp_path / str(workers), workers=workers)[0] for workers in (1, 2)
    )
    files = sorted(file.relative_to(alone) for file in alone.rglob("*") if file.is_file())
    assert len(files) == 11
    assert [(alone / f).read_bytes() for f in files] == [(together / f).read_bytes() for f in files]


@pytest.mark.parametrize("regions", [False, True])
def test_nnunet_itself_finds_the_dataset_in_order(
    release: SmallRelease, raw: Path, regions: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    release.add(ONE)
    release.add(TWO, without=["T1ce"])
    (dataset,) = convert_brats("brats2020", release.root, raw, regions=regions)
    verify_dataset_integrity(str(dataset), num_processes=1)
    printed = capsys.readouterr().out
    assert "your dataset is most likely OK" in printed
    assert "WARNING" not in printed.upper()
