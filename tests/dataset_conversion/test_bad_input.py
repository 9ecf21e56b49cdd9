"""Bad input stops with one message that names case, file, expected and found, before anything is written."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from dataset_conversion import SiteAssignment, convert_brats
from nnunet_fedmepd.errors import ConfigurationError, DatasetError, ModalityError
from tests.dataset_conversion.small_release import (
    DIRECTION,
    ORIGIN_MM,
    SPACING_MM,
    SmallRelease,
    label_voxels,
    scan_voxels,
    volume,
    write,
)

ONE, TWO, THREE = "BraTS20_Training_001", "BraTS20_Training_002", "BraTS20_Training_003"


@pytest.fixture(autouse=True)
def two_cases(release: SmallRelease) -> None:
    """Two cases in good order, for the tests to damage."""
    release.add(ONE)
    release.add(TWO)


def message(release: SmallRelease, raw: Path, sites: Sequence[SiteAssignment] | None = None, workers: int = 1) -> str:
    """Return what the conversion says, in one line, after checking that it wrote nothing."""
    with pytest.raises(DatasetError) as stop:
        convert_brats("brats2020", release.root, raw, sites, workers=workers)
    assert not raw.exists()
    return re.sub(r"\n +", " | ", str(stop.value))


def contains(text: str, *parts: str) -> bool:
    """Check that the parts occur in this order."""
    return re.search(".*".join(map(re.escape, parts)), text) is not None


@pytest.mark.parametrize("bytes_lost", [1, 20, 300])
def test_truncated_compressed_scan(release: SmallRelease, raw: Path, bytes_lost: int) -> None:
    file = release.scan(TWO, "T2")
    file.write_bytes(file.read_bytes()[:-bytes_lost])
    assert contains(
        message(release, raw),
        "Unreadable or truncated volume",
        f"case: {TWO}",
        f"file: {file}",
        "expected: a complete NIfTI file",
        "found: Compressed file ended before the end-of-stream marker",
    )


def test_truncated_uncompressed_scan(release: SmallRelease, raw: Path) -> None:
    shutil.rmtree(release.root / TWO)
    release.add(TWO, ending=".nii")
    file = release.scan(TWO, "T2", ".nii")
    file.write_bytes(file.read_bytes()[:-2])
    # 348 bytes of header, 4 of extension flag, and 7 x 9 x 8 voxels of 2 bytes
    assert contains(
        message(release, raw), "Unreadable", TWO, str(file), "found: 1358 bytes, where the header promises 1360"
    )


def test_scan_whose_compressed_bytes_were_altered(release: SmallRelease, raw: Path) -> None:
    file = release.scan(TWO, "T2")
    content = bytearray(file.read_bytes())
    content[-6] ^= 1  # inside the checksum
    file.write_bytes(content)
    assert contains(message(release, raw), "Unreadable", TWO, str(file), "found: CRC check failed")


@pytest.mark.parametrize(
    "content", [b"", b"This is no image.", gzip.compress(b"Nor is this.", mtime=0)], ids=["empty", "text", "gzip"]
)
def test_scan_that_is_no_nifti_file(release: SmallRelease, raw: Path, content: bytes) -> None:
    file = release.scan(ONE, "T1")
    file.write_bytes(content)
    assert contains(message(release, raw), "Unreadable", f"case: {ONE}", f"file: {file}", "expected: a complete NIfTI")


def test_scan_whose_header_is_damaged(release: SmallRelease, raw: Path) -> None:
    file = release.scan(ONE, "T1")
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[42:44] = b"\xff\xff"  # the number of voxels along x, now -1
    file.write_bytes(gzip.compress(bytes(content)))
    assert contains(message(release, raw), "Unreadable", ONE, str(file), "found: no sound NIfTI-1 header")


def test_scan_of_four_dimensions(release: SmallRelease, raw: Path) -> None:
    file = release.scan(ONE, "T1")
    write(SimpleITK.JoinSeries([volume(scan_voxels("a")), volume(scan_voxels("b"))]), file)
    assert contains(message(release, raw), "Not a plain volume", ONE, str(file), "3 dimensions", "found: 4 dimensions")


def test_scan_of_another_shape(release: SmallRelease, raw: Path) -> None:
    file = release.scan(TWO, "FLAIR")
    write(volume(scan_voxels("any")[:-1]), file)
    assert contains(
        message(release, raw),
        "Different shape within a case",
        f"case: {TWO}",
        f"file: {file}",
        f"expected: shape (8, 9, 7) as in {TWO}_t1.nii.gz",
        "found: shape (8, 9, 6)",
    )


GRIDS = [
    ("Spacing", (1.25, 0.9375, 2.501), "spacing (1.25, 0.9375, 2.5)", "spacing (1.25, 0.9375, 2.501)"),
    ("Origin", (-31.5, 12.25, 7.02), "origin (-31.5, 12.25, 7)", "origin (-31.5, 12.25, 7.02)"),
    (
        "Direction",
        (0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1),
        "direction (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)",
        "direction (0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1)",
    ),
]


@pytest.mark.parametrize(("name", "value", "expected", "found"), GRIDS)
def test_scan_of_another_spacing_origin_or_direction(
    release: SmallRelease, raw: Path, name: str, value: tuple[float, ...], expected: str, found: str
) -> None:
    file, image = release.scan(TWO, "T1ce"), volume(scan_voxels("any"))
    getattr(image, f"Set{name}")(value)
    write(image, file)
    assert contains(
        message(release, raw),
        f"Different {name.lower()} within a case",
        f"case: {TWO}",
        f"file: {file}",
        f"expected: {expected} as in {TWO}_t1.nii.gz",
        f"found: {found}",
    )


def test_segmentation_on_another_grid(release: SmallRelease, raw: Path) -> None:
    image = volume(label_voxels([1, 2, 4]))
    image.SetOrigin((0, 0, 0))
    write(image, release.seg(ONE))
    assert contains(message(release, raw), "Different origin", ONE, str(release.seg(ONE)), "found: origin (0, 0, 0)")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Spacing", (SPACING_MM[0] * 1.000005, *SPACING_MM[1:])),
        ("Origin", (ORIGIN_MM[0] + 0.005, *ORIGIN_MM[1:])),
        ("Direction", (np.cos(a := np.arctan2(0.6, 0.8) + 5e-5), -np.sin(a), 0, np.sin(a), np.cos(a), 0, 0, 0, 1)),
    ],
)
def test_grids_that_differ_by_rounding_are_the_same(
    release: SmallRelease, raw: Path, name: str, value: tuple[float, ...]
) -> None:
    image = volume(scan_voxels("any"))
    getattr(image, f"Set{name}")(value)
    write(image, release.scan(TWO, "T1ce"))
    written = SimpleITK.ReadImage(str(release.scan(TWO, "T1ce")))
    unchanged = {"Spacing": SPACING_MM, "Origin": ORIGIN_MM, "Direction": DIRECTION}[name]
    assert not np.allclose(getattr(written, f"Get{name}")(), unchanged, rtol=0, atol=1e-6)
    assert len(convert_brats("brats2020", release.root, raw)) == 1


@pytest.mark.parametrize(("value", "found"), [(np.nan, "1 NaN, 0 infinite"), (-np.inf, "0 NaN, 1 infinite")])
@pytest.mark.parametrize("number_type", [np.float32, np.float64])
def test_voxel_that_is_no_number(release: SmallRelease, raw: Path, value: float, found: str, number_type: type) -> None:
    voxels, file = scan_voxels("any", number_type), release.scan(TWO, "T1")
    voxels[6, 0, 2] = value
    write(volume(voxels), file)
    assert contains(
        message(release, raw),
        "Voxels that are not numbers",
        f"case: {TWO}",
        f"file: {file}",
        "expected: finite numbers",
        f"found: {found}; the first at x,y,z = 2,0,6",
    )


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_byte_order_does_not_matter(release: SmallRelease, raw: Path, value: float) -> None:
    voxels, file = np.ones((8, 9, 7), ">f4"), release.scan(TWO, "T1")
    voxels[2, 0, 6] = value
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">f4")
    grid_of = nibabel.Nifti1Image.from_filename(release.scan(TWO, "T2"))
    nibabel.save(nibabel.Nifti1Image(voxels, grid_of.affine, header), file)
    assert gzip.decompress(file.read_bytes())[:4] == b"\0\0\1\x5c"  # 348, highest byte first
    if np.isnan(value):
        assert contains(message(release, raw), "not numbers", TWO, "1 NaN, 0 infinite; the first at x,y,z = 2,0,6")
    else:
        assert len(convert_brats("brats2020", release.root, raw)) == 1


def test_unknown_label(release: SmallRelease, raw: Path) -> None:
    write(volume(label_voxels([1, 3, 3, 7])), release.seg(ONE))
    assert contains(
        message(release, raw),
        "Unknown label value",
        f"case: {ONE}",
        f"file: {release.seg(ONE)}",
        "expected: only 0, 1, 2, 4",
        "found: 3 (2 voxels), 7 (1 voxels)",
    )


def test_label_that_is_no_whole_number(release: SmallRelease, raw: Path) -> None:
    write(volume(label_voxels([1]).astype(np.float32) * 1.5), release.seg(ONE))
    assert contains(message(release, raw), "Unknown label value", ONE, "found: 1.5 (1 voxels)")


def test_missing_segmentation_of_a_training_case(release: SmallRelease, raw: Path) -> None:
    release.seg(TWO).unlink()
    assert contains(
        message(release, raw),
        "Missing segmentation of a training case",
        f"case: {TWO}",
        f"file: {release.root / TWO}",
        "expected: a segmentation",
        f"found: {TWO}_flair.nii.gz, {TWO}_t1.nii.gz, {TWO}_t1ce.nii.gz, {TWO}_t2.nii.gz",
    )


def test_case_without_any_scan_of_its_site(release: SmallRelease, raw: Path) -> None:
    for modality in "T1", "FLAIR":
        release.scan(TWO, modality).unlink()
    site = SiteAssignment("north", (ONE, TWO), modalities=("T1", "FLAIR"))
    assert contains(
        message(release, raw, [site]),
        "A case lacks all scans of site north",
        f"case: {TWO}",
        f"file: {release.root / TWO}",
        "expected: at least one of T1, FLAIR",
        f"found: {TWO}_seg.nii.gz, {TWO}_t1ce.nii.gz, {TWO}_t2.nii.gz",
    )


def test_case_whose_scans_are_all_zero_everywhere(release: SmallRelease, raw: Path) -> None:
    write(volume(np.zeros_like(scan_voxels("any"))), release.scan(TWO, "T2"))
    site = SiteAssignment("north", (ONE, TWO), modalities=("T2",))
    assert contains(message(release, raw, [site]), "A case lacks all scans of site north", TWO, "not zero everywhere")


def test_modality_that_no_training_case_of_a_site_has(release: SmallRelease, raw: Path) -> None:
    for case in ONE, TWO:
        release.scan(case, "T1ce").rename(release.root / case / f"{case}_t1gd.nii.gz")
    assert contains(
        message(release, raw),
        "No training case of site all has a T1ce scan",
        f"case: {ONE}",
        "expected: a T1ce scan in at least one of the site's 2 training cases",
        f"found: {ONE}_flair.nii.gz, {ONE}_seg.nii.gz, {ONE}_t1.nii.gz, {ONE}_t1gd.nii.gz",
    )


def test_same_case_in_two_folders(release: SmallRelease, raw: Path) -> None:
    shutil.copytree(release.root / TWO, release.root / "again" / TWO)
    assert contains(
        message(release, raw),
        "Duplicate case",
        f"case: {TWO}",
        f"file: {release.root / 'again' / TWO}",
        "expected: every case in one folder only",
        f"found: the same case in {release.root / TWO}",
    )


def test_same_scan_compressed_and_uncompressed(release: SmallRelease, raw: Path) -> None:
    write(volume(scan_voxels("any")), release.scan(TWO, "T1", ".nii"))
    assert contains(
        message(release, raw), "The same scan is given twice", TWO, str(release.scan(TWO, "T1")), f"{TWO}_t1.nii"
    )


def test_folder_in_the_place_of_a_scan(release: SmallRelease, raw: Path) -> None:
    release.scan(TWO, "T1").unlink()
    release.scan(TWO, "T1").mkdir()
    assert contains(message(release, raw), "A folder has the name of a scan", TWO, "expected: a NIfTI file")


def test_case_in_two_sites(release: SmallRelease, raw: Path) -> None:
    sites = [SiteAssignment("a", (ONE, TWO)), SiteAssignment("b", (TWO,))]
    assert contains(
        message(release, raw, sites), "Duplicate case", f"case: {TWO}", "found: in site a and again in site b"
    )


def test_case_for_training_and_test(release: SmallRelease, raw: Path) -> None:
    site = SiteAssignment("a", (ONE, TWO), test=(TWO,))
    assert contains(message(release, raw, [site]), "Duplicate case", TWO, "found: in site a and again in site a")


def test_case_in_no_site(release: SmallRelease, raw: Path) -> None:
    assert contains(
        message(release, raw, [SiteAssignment("a", (ONE,))]),
        "A case belongs to no site",
        f"case: {TWO}",
        f"file: {release.root / TWO}",
        "expected: every case of the source in one site",
        f"found: 1 cases in no site: {TWO}",
    )


def test_case_that_is_not_in_the_source(release: SmallRelease, raw: Path) -> None:
    assert contains(
        message(release, raw, [SiteAssignment("a", (ONE, TWO, THREE))]),
        "Site a has a case that is not in the source folder",
        f"case: {THREE}",
        f"expected: one of the 2 cases there: {ONE}, {TWO}",
        f"found: '{THREE}'",
    )


def test_site_without_a_case(release: SmallRelease, raw: Path) -> None:
    sites = [SiteAssignment("a", (ONE, TWO)), SiteAssignment("b", ())]
    assert contains(
        message(release, raw, sites), "Site b has no training case", "expected: at least one", "found: no case at all"
    )


def test_site_with_test_cases_only(release: SmallRelease, raw: Path) -> None:
    sites = [SiteAssignment("a", (ONE,)), SiteAssignment("b", (), test=(TWO,))]
    assert contains(message(release, raw, sites), "Site b has no training case", f"found: 1 test cases: {TWO}")


def test_site_given_twice(release: SmallRelease, raw: Path) -> None:
    sites = [SiteAssignment("a", (ONE,)), SiteAssignment("a", (TWO,))]
    assert contains(message(release, raw, sites), "Site a is given twice", "expected: every site once", "found: a, a")


def test_site_name_that_no_folder_can_have() -> None:
    with pytest.raises(DatasetError, match=r"Site name '\.\./a' cannot be part of a folder's name"):
        SiteAssignment("../a", (ONE,))


def test_unknown_modality() -> None:
    with pytest.raises(ModalityError, match=r"Unknown modality 'PET' in the modalities of site a: expected one of"):
        SiteAssignment("a", (ONE,), modalities=("T1", "PET"))


def test_modality_named_twice() -> None:
    with pytest.raises(ModalityError, match=r"Channels 'T1ce' and 't1c' in the modalities of site a both mean 'T1ce'"):
        SiteAssignment("a", (ONE,), modalities=("T1ce", "t1c"))


def test_site_without_modality() -> None:
    with pytest.raises(ModalityError, match="Site a has no modality"):
        SiteAssignment("a", (ONE,), modalities=())


def test_source_that_does_not_exist(tmp_path: Path, raw: Path) -> None:
    with pytest.raises(DatasetError, match="source folder does not exist") as stop:
        convert_brats("brats2020", tmp_path / "nowhere", raw)
    assert str(tmp_path / "nowhere") in str(stop.value)


def test_source_of_another_layout(release: SmallRelease, raw: Path) -> None:
    with pytest.raises(DatasetError, match="No BraTS2021 case in the source folder") as stop:
        convert_brats("brats2021", release.root, raw)
    assert contains(str(stop.value).replace("\n", " "), "named like BraTS2021_00000", f"found: {ONE}, {TWO}")


def test_unknown_layout(release: SmallRelease, raw: Path) -> None:
    with pytest.raises(ConfigurationError, match="'brats1999': expected one of brats2018, brats2020, brats2021"):
        convert_brats("brats1999", release.root, raw)


@pytest.mark.parametrize("existing", ["Dataset501_BraTS2020_b", "Dataset501_Spleen"])
def test_output_of_the_same_id_that_exists_already_stays_as_it_is(
    release: SmallRelease, raw: Path, existing: str
) -> None:
    (raw / existing).mkdir(parents=True)
    sites = [SiteAssignment("a", (ONE,)), SiteAssignment("b", (TWO,))]
    with pytest.raises(DatasetError, match="The output exists already") as stop:
        convert_brats("brats2020", release.root, raw, sites)
    assert contains(str(stop.value).replace("\n", " "), f"file: {raw / existing}", "expected: no", "found: a folder")
    assert [path.name for path in raw.rglob("*")] == [existing]


@pytest.mark.parametrize("first_id", [0, 999])
def test_dataset_ids_that_nnunet_cannot_have(release: SmallRelease, raw: Path, first_id: int) -> None:
    sites = [SiteAssignment("a", (ONE,)), SiteAssignment("b", (TWO,))]
    with pytest.raises(ConfigurationError, match=f"ids {first_id} to {first_id + 1} are out of nnU-Net's range"):
        convert_brats("brats2020", release.root, raw, sites, first_id=first_id)


def test_prefix_that_leads_elsewhere(release: SmallRelease, raw: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"Prefix 'a/b' cannot be part of a folder's name"):
        convert_brats("brats2020", release.root, raw, prefix="a/b")


def test_no_worker(release: SmallRelease, raw: Path) -> None:
    with pytest.raises(ConfigurationError, match="0 workers: expected at least 1"):
        convert_brats("brats2020", release.root, raw, workers=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_first_case_at_fault_is_described_and_the_others_are_named(
    release: SmallRelease, raw: Path, workers: int
) -> None:
    release.add(THREE)
    release.seg(ONE).unlink()
    release.scan(THREE, "T2").write_bytes(b"broken")
    text = message(release, raw, workers=workers)
    assert contains(text, "Missing segmentation", f"case: {ONE}", f"1 more cases are at fault: {THREE}")
    assert TWO not in text
