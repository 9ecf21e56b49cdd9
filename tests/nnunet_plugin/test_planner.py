"""Plans: one topology for all sites, this site's modalities, and nothing lost when planning again."""

import json

import numpy as np
import pytest

from nnunet_fedmepd.errors import DatasetError, ModalityError
from nnunet_fedmepd.nnunet_plugin.fingerprint import FedMEPDFingerprintExtractor
from nnunet_fedmepd.nnunet_plugin.planner import FedMEPDPlanner, FedMEPDTinyPlanner
from tests.nnunet_plugin.small_dataset import BRATS, HEAD, SHAPE, cut_to_head, make_dataset, write_image

pytestmark = pytest.mark.usefixtures("nnunet_paths")


def plan(dataset, planner=FedMEPDTinyPlanner, **settings):
    FedMEPDFingerprintExtractor(dataset.name, 1).run()
    return planner(dataset.name, **settings).plan_experiment()


def architecture(plans, configuration="3d_fullres"):
    return plans["configurations"][configuration]["architecture"]["arch_kwargs"]


def test_sites_with_other_modalities_get_the_same_topology():
    plans = [plan(make_dataset(f"Dataset00{i}_x", channels)) for i, channels in enumerate([BRATS, ["T2"]], 1)]
    own = [architecture(p).pop("modalities") for p in plans]
    assert own == [list(BRATS), ["T2"]]
    assert architecture(plans[0]) == architecture(plans[1])
    assert architecture(plans[0])["canonical_modalities"] == list(BRATS)
    for key in ("patch_size", "batch_size", "spacing"):
        first, second = (p["configurations"]["3d_fullres"][key] for p in plans)
        assert np.array_equal(first, second)


def test_less_gpu_memory_gives_a_smaller_patch():
    dataset = make_dataset("Dataset001_x")
    voxels = [
        np.prod(plan(dataset, gpu_memory_target_in_gb=gb)["configurations"]["3d_fullres"]["patch_size"])
        for gb in (8, 0.005)
    ]
    assert voxels[1] < voxels[0]


def test_the_auxiliary_decoder_is_planned_at_half_the_resolution():
    plans = plan(make_dataset("Dataset001_x"))
    assert [architecture(plans, name)["auxiliary_scale"] for name in ("2d", "3d_fullres")] == [1, 1]


def test_the_full_planner_uses_half_of_nnunets_widths_and_the_tiny_one_a_quarter():
    dataset = make_dataset("Dataset001_x")
    assert architecture(plan(dataset, FedMEPDPlanner))["features_per_stage"][0] == 16
    assert architecture(plan(dataset))["features_per_stage"][0] == 8


def test_the_saved_plans_are_complete_and_a_setting_edited_by_hand_survives_planning_again():
    dataset = make_dataset("Dataset001_x", ["t1gd", "t2f"])
    plan(dataset)
    plans = dataset.plans
    assert plans["fedmepd"]["canonical_modalities"] == list(BRATS)
    assert architecture(plans)["modalities"] == ["T1ce", "FLAIR"]
    assert plans["configurations"]["3d_fullres"]["preprocessor_name"] == "FedMEPDPreprocessor"
    plans["fedmepd"]["training"]["num_epochs"] = 77
    (dataset.preprocessed / "FedMEPDTinyPlans.json").write_text(json.dumps(plans))
    plan(dataset)
    assert dataset.plans["fedmepd"]["training"]["num_epochs"] == 77


def test_a_cascade_is_never_planned():
    dataset = make_dataset("Dataset001_x")
    FedMEPDFingerprintExtractor(dataset.name, 1).run()
    file = dataset.preprocessed / "dataset_fingerprint.json"
    fingerprint = json.loads(file.read_text())
    fingerprint["shapes_after_crop"] = [[400, 400, 400]] * 3
    file.write_text(json.dumps(fingerprint))
    plans = FedMEPDTinyPlanner(dataset.name, 1).plan_experiment()
    assert "3d_lowres" in plans["configurations"]
    assert "3d_cascade_fullres" not in plans["configurations"]
    assert "next_stage" not in plans["configurations"]["3d_lowres"]


def test_channels_that_brats_does_not_know_are_canonical_by_themselves():
    assert architecture(plan(make_dataset("Dataset001_x", ["CT", "PET"])))["canonical_modalities"] == ["CT", "PET"]


def test_dataset_json_may_fix_the_canonical_list_and_aliases():
    section = {"canonical_modalities": ["CT", "PET", "T2"], "modality_aliases": {"ctac": "CT"}}
    kwargs = architecture(plan(make_dataset("Dataset001_x", ["T2w", "ctac"], fedmepd=section)))
    assert (kwargs["modalities"], kwargs["canonical_modalities"]) == (["T2", "CT"], ["CT", "PET", "T2"])


def test_a_channel_outside_the_canonical_list_is_refused_by_name():
    dataset = make_dataset("Dataset001_x", ["T1", "SWI"], fedmepd={"canonical_modalities": ["T1", "T2"]})
    with pytest.raises(ModalityError, match=r"Unknown modality 'SWI' in Dataset001_x/dataset\.json"):
        plan(dataset)


def test_the_fingerprint_is_nnunets_in_content():
    dataset = make_dataset("Dataset001_x", ["T1", "T2"])
    fingerprint = FedMEPDFingerprintExtractor(dataset.name, 2).run()
    assert fingerprint["spacings"] == [pytest.approx([1.2, 1, 1])] * 3
    assert fingerprint["shapes_after_crop"] == [[14, 20, 18]] * 3
    assert fingerprint["median_relative_size_after_cropping"] == 1
    statistics = fingerprint["foreground_intensity_properties_per_channel"]["0"]
    assert statistics["min"] <= statistics["percentile_00_5"] <= statistics["median"] <= statistics["max"]
    assert 120 < statistics["mean"] < 160
    assert json.loads((dataset.preprocessed / "dataset_fingerprint.json").read_text()) == fingerprint


@pytest.mark.parametrize("empty", [False, True])
def test_the_empty_space_around_a_head_is_left_out_of_normalisation_though_its_box_fills_the_image(empty):
    dataset = make_dataset("Dataset001_x", ["T1"])
    head = HEAD | (not empty)
    cut_to_head(dataset, head)
    plan(dataset)
    fingerprint = json.loads((dataset.preprocessed / "dataset_fingerprint.json").read_text())
    assert fingerprint["shapes_after_crop"] == [list(SHAPE)] * 3
    assert fingerprint["median_relative_size_after_cropping"] == pytest.approx(head.mean())
    planned = dataset.plans["configurations"]["3d_fullres"]
    assert planned["use_mask_for_norm"] == [empty]
    assert planned["normalization_schemes"] == ["TissueZScoreNormalization" if empty else "ZScoreNormalization"]


def test_a_blank_channel_adds_nothing_to_the_intensities():
    dataset = make_dataset("Dataset001_x", ["CT", "PET"], blank={"case0": ["CT"]})
    statistics = FedMEPDFingerprintExtractor(dataset.name, 1).run()["foreground_intensity_properties_per_channel"]
    assert statistics["0"]["min"] > 50


def test_a_channel_that_is_blank_everywhere_is_refused():
    dataset = make_dataset("Dataset001_x", ["T1", "T2"], blank={f"case{i}": ["T2"] for i in range(3)})
    with pytest.raises(DatasetError, match=r"Channel 1 \(T2\) has no foreground voxel with a signal in any case"):
        FedMEPDFingerprintExtractor(dataset.name, 1).run()


def test_an_existing_fingerprint_is_kept_unless_asked_otherwise():
    dataset = make_dataset("Dataset001_x", ["T1"])
    first = FedMEPDFingerprintExtractor(dataset.name, 1).run()
    write_image(dataset.raw / "imagesTr" / "case0_0000.nii.gz", np.full((14, 20, 18), 1000))
    assert FedMEPDFingerprintExtractor(dataset.name, 1).run() == first
    assert FedMEPDFingerprintExtractor(dataset.name, 1).run(overwrite_existing=True) != first
