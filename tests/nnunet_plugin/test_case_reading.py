"""Cases that cannot be trained on are told before they are: by `plan`, which reads all, and by the quicker check."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.modalities import ModalityVocabulary
from nnunet_fedmepd.nnunet_plugin.fingerprint import FedMEPDFingerprintExtractor
from nnunet_fedmepd.nnunet_plugin.raw_dataset import open_raw_dataset
from nnunet_fedmepd.nnunet_plugin.site_cases import check_site_cases, site_cases
from tests.nnunet_plugin.varied_sites import Site, write_site

pytestmark = pytest.mark.usefixtures("nnunet_paths")


@pytest.fixture(params=[".nii.gz", ".nii", ".nrrd"])
def ending(request):
    return request.param


@pytest.fixture
def opened(ending):
    """A dataset, and what a test does to an image or label map of it."""
    site = Site("a", ("T1", "T2"), (20, 24, 22), n_cases=6, file_ending=ending)
    return open_raw_dataset(write_site(site, 1), ModalityVocabulary(("T1", "T2")))


def change(file, edit, **geometry):
    image = SimpleITK.ReadImage(str(file))
    changed = SimpleITK.GetImageFromArray(edit(SimpleITK.GetArrayFromImage(image)))
    changed.SetSpacing(geometry.get("spacing", image.GetSpacing()))
    SimpleITK.WriteImage(changed, str(file))


def refusals(dataset):
    """What the check, `plan` and nnU-Net's command say."""
    checks = (check_site_cases, site_cases, lambda data: FedMEPDFingerprintExtractor(data.name, 1).run())
    for check in checks:
        with pytest.raises(DatasetError) as refused:
            check(dataset)
        yield str(refused.value)


def test_a_sound_dataset_passes(opened):
    read = []
    check_site_cases(opened, 2, lambda: read.append(1))
    assert len(read) == 6


@pytest.mark.parametrize("part", ["imagesTr/a1_0001", "labelsTr/a1"])
def test_a_file_that_was_cut_off_is_named(opened, ending, part):
    file = opened.folder / f"{part}{ending}"
    file.write_bytes(file.read_bytes()[:-40])
    for message in refusals(opened):
        assert message.startswith(("A file of a training case is cut off", "A training case cannot be read"))
        assert f"case: a1\n  file: {file}\n" in message


def test_a_file_that_is_no_image_is_named(opened, ending):
    file = opened.folder / "imagesTr" / f"a1_0001{ending}"
    file.write_bytes(b"nonsense")
    for message in refusals(opened):
        assert f"A training case cannot be read\n  case: a1\n  file: {file}\n" in message


@pytest.mark.parametrize("ending", [".nii.gz"], indirect=True)
def test_a_compressed_file_of_several_parts_is_whole_and_noticed_when_one_is_lost(opened):
    file = opened.folder / "imagesTr" / "a1_0001.nii.gz"
    content = gzip.decompress(file.read_bytes())
    parts = [gzip.compress(content[:3000]), gzip.compress(content[3000:])]
    file.write_bytes(b"".join(parts))
    check_site_cases(opened)
    site_cases(opened)
    file.write_bytes(parts[0])
    for message in refusals(opened):
        assert f"cut off\n  case: a1\n  file: {file}\n  expected: {len(content)} bytes" in message


@pytest.mark.parametrize("part", ["imagesTr/a1_0001", "labelsTr/a1"])
def test_files_of_different_size_are_refused(opened, ending, part):
    change(opened.folder / f"{part}{ending}", lambda voxels: voxels[:-1])
    for message in refusals(opened):
        assert "case: a1\n" in message
        assert "size" in message


def test_images_of_different_spacing_are_refused(opened, ending):
    change(opened.folder / "imagesTr" / f"a1_0001{ending}", lambda voxels: voxels, spacing=(1.0, 1.0, 2.0))
    for message in refusals(opened):
        assert "case: a1\n" in message
        assert "spacing" in message


def test_values_of_a_label_map_that_are_not_declared_are_named_with_case_and_file(opened, ending):
    def label(voxels):
        voxels[0, 0] = 7
        return voxels

    file = opened.folder / "labelsTr" / f"a1{ending}"
    change(file, label)
    for message in refusals(opened):
        assert message == (
            f"A label map holds values that dataset.json does not declare\n  case: a1\n  file: {file}\n"
            "  expected: only 0, 1, 2\n  found: 7\n"
            "  what to do: correct the label map, or declare the label in dataset.json, of all sites alike"
        )


@pytest.mark.parametrize("ending", [".nii.gz"], indirect=True)
def test_of_several_bad_cases_the_first_are_told_in_full_and_the_others_counted(opened):
    for case in range(1, 6):
        change(
            opened.folder / "labelsTr" / f"a{case}.nii.gz", lambda voxels: np.arange(voxels.size).reshape(voxels.shape)
        )
    for message in refusals(opened):
        assert message.startswith("5 cases cannot be used\n  A label map holds values")
        assert [f"    case: a{case}\n" in message for case in range(6)] == [False, True, True, True, False, False]
        assert "found: 3, 4, 5, 6, 7 and " in message
        assert message.endswith("\n  and 2 more: a4, a5")


@pytest.mark.parametrize("ending", [".nii.gz"], indirect=True)
def test_a_label_that_is_no_longer_declared_is_noticed_though_no_image_changed(opened, nnunet_paths):
    site_cases(opened)
    description = nnunet_paths.raw / opened.name / "dataset.json"
    description.write_text(description.read_text().replace('"core": 1, "edema": 2', '"tumour": 1'))
    with pytest.raises(DatasetError, match="6 cases cannot be used"):
        site_cases(open_raw_dataset(opened.name, ModalityVocabulary(("T1", "T2"))))
