"""Preprocessing refuses wrong channels and leaves blank ones blank."""

import json
import shutil

import numpy as np
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fedmepd.errors import DatasetError, ModalityError
from nnunet_fedmepd.nnunet_plugin.fingerprint import FedMEPDFingerprintExtractor
from nnunet_fedmepd.nnunet_plugin.planner import FedMEPDTinyPlanner
from nnunet_fedmepd.nnunet_plugin.preprocessor import FedMEPDPreprocessor, check_image_files
from tests.nnunet_plugin.small_dataset import cut_to_head, make_dataset, write_case

pytestmark = pytest.mark.usefixtures("nnunet_paths")


def preprocess(dataset, files, description=None):
    manager = PlansManager(dataset.plans)
    return FedMEPDPreprocessor(verbose=False).run_case(
        [str(file) for file in files],
        None,
        manager,
        manager.get_configuration("3d_fullres"),
        description or dataset.description,
    )


def planned(channels, head_only=False, **changes):
    dataset = make_dataset("Dataset001_x", channels, **changes)
    if head_only:
        cut_to_head(dataset)
    FedMEPDFingerprintExtractor(dataset.name, 1).run()
    FedMEPDTinyPlanner(dataset.name, 1).plan_experiment()
    return dataset


@pytest.mark.parametrize("channels", [["CT", "PET"], ["T1", "T2"]], ids="+".join)
def test_a_blank_channel_stays_blank_whatever_its_normalisation(channels, tmp_path):
    dataset = planned(channels)
    write_case(tmp_path, "new", channels, blank=channels[:1])
    data, _, _ = preprocess(dataset, sorted(tmp_path.glob("new_*")))
    assert not data[0].any()
    assert data[1].any()


def test_empty_space_lies_at_zero_below_the_tissue():
    dataset = planned(["T1", "CT"], head_only=True)
    data, seg, _ = preprocess(dataset, sorted((dataset.raw / "imagesTr").glob("case0_*")))
    assert not data[0, seg[0] < 0].any()
    tissue = data[0, seg[0] >= 0]
    assert tissue.mean() == pytest.approx(3, abs=1e-4)
    assert tissue.std() == pytest.approx(1, abs=1e-4)


def test_plans_made_with_nnunets_normalisation_keep_it():
    dataset = planned(["T1"], head_only=True)
    file = dataset.preprocessed / "FedMEPDTinyPlans.json"
    file.write_text(file.read_text().replace("TissueZScoreNormalization", "ZScoreNormalization"))
    data, seg, _ = preprocess(dataset, sorted((dataset.raw / "imagesTr").glob("case0_*")))
    assert data[0, seg[0] >= 0].mean() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["new_0000.nii.gz"], "new_0000.nii.gz"),
        (["new_0000.nii.gz", "new_0002.nii.gz"], "new_0000.nii.gz, new_0002.nii.gz"),
        (["new_0001.nii.gz", "new_0000.nii.gz"], "new_0001.nii.gz, new_0000.nii.gz"),
        (["new_0000.nii.gz", "new_0001.nii.gz", "new_0002.nii.gz"], "new_0002.nii.gz"),
    ],
    ids=["missing", "gap", "out of order", "superfluous"],
)
def test_a_case_without_exactly_one_file_per_modality_is_refused(files, found):
    with pytest.raises(DatasetError, match=r"case: new") as error:
        check_image_files(files, ["T1", "T2"], ".nii.gz")
    assert "new_0000.nii.gz (T1), new_0001.nii.gz (T2)" in error.value.expected
    assert found in error.value.found


def test_files_with_other_names_are_counted_only():
    check_image_files(["a/first.nii.gz", "b/second.nii.gz"], ["T1", "T2"], ".nii.gz")
    with pytest.raises(DatasetError, match="exactly one image per modality"):
        check_image_files(["a/first.nii.gz"], ["T1", "T2"], ".nii.gz")


def test_a_missing_file_does_not_shift_channels_silently():
    dataset = planned(["T1", "T2"])
    with pytest.raises(DatasetError, match=r"case0_0001.nii.gz \(T2\)"):
        preprocess(dataset, [dataset.raw / "imagesTr" / "case0_0000.nii.gz"])


def test_images_of_a_dataset_with_another_channel_order_are_refused(tmp_path):
    dataset = planned(["T1", "T2"])
    other = tmp_path / "Dataset009_other"
    shutil.copytree(dataset.raw, other)
    swapped = {**dataset.description, "channel_names": {"0": "T2", "1": "T1"}}
    (other / "dataset.json").write_text(json.dumps(swapped))
    with pytest.raises(ModalityError, match=r"Dataset009_other/dataset.json are in another order"):
        preprocess(dataset, sorted((other / "imagesTr").glob("case0_*")))


def test_a_dataset_json_that_does_not_fit_the_plans_is_refused():
    dataset = planned(["T1", "T2"])
    files = sorted((dataset.raw / "imagesTr").glob("case0_*"))
    with pytest.raises(ModalityError, match=r"expected \['T1', 'T2'\].*found \['T1', 'FLAIR'\]"):
        preprocess(dataset, files, {**dataset.description, "channel_names": {"0": "T1", "1": "FLAIR"}})


def test_an_array_with_a_wrong_number_of_channels_is_refused():
    manager = PlansManager(planned(["T1", "T2"]).plans)
    settings = manager.get_configuration("3d_fullres")
    with pytest.raises(DatasetError, match=r"expected: 2 channels: T1, T2\s+found: 1 channels"):
        FedMEPDPreprocessor(verbose=False).run_case_npy(
            np.ones((1, 14, 20, 18)), None, {"spacing": [1, 1, 1]}, manager, settings, {}
        )
