"""Joint planning: pooled plans without data, every site's copy, what is kept and what is made again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2

from nnunet_fedmepd.errors import ConfigurationError, DatasetError, ModalityError
from nnunet_fedmepd.maths.fingerprints import planning_request, pool, pooled_fingerprint
from nnunet_fedmepd.maths.planning_reports import PlanningResolution, SiteCases, first_report, second_report
from nnunet_fedmepd.modalities import ModalityVocabulary
from nnunet_fedmepd.nnunet_plugin.fingerprint import FedMEPDFingerprintExtractor, intensity_statistics
from nnunet_fedmepd.nnunet_plugin.joint_planning import (
    SiteTerms,
    plans_for_site,
    pooled_plans,
    site_terms,
)
from nnunet_fedmepd.nnunet_plugin.planner import FedMEPDPlanner
from nnunet_fedmepd.nnunet_plugin.preprocessor import FedMEPDPreprocessor
from nnunet_fedmepd.nnunet_plugin.raw_dataset import open_raw_dataset
from nnunet_fedmepd.nnunet_plugin.registration import register
from nnunet_fedmepd.nnunet_plugin.site_cases import CACHE, site_cases, site_fingerprint
from nnunet_fedmepd.nnunet_plugin.site_preparation import Adopted, adopt_plans
from tests.nnunet_plugin.varied_sites import Site, preprocessed_json, write_site

pytestmark = pytest.mark.usefixtures("nnunet_paths")

CANONICAL = ("T1", "CT", "FLAIR")
VOCABULARY = ModalityVocabulary(CANONICAL, {"t2 flair": "FLAIR"})
RESOLUTION = PlanningResolution()
PLAIN = SiteTerms(("T1",), {"background": 0, "tumour": 1}, None, ".nii.gz")
REGIONS = SiteTerms(("T1",), {"background": 0, "whole": [1, 2], "core": [2]}, (1, 2), ".nii.gz")


@pytest.fixture(autouse=True)
def _registered():
    register()


def random_site(rng, n_cases, coarse_axis):
    spacing, shape = rng.uniform(0.5, 2.0, 3), rng.integers(60, 160, 3)
    if coarse_axis is not None:
        spacing[coarse_axis], shape[coarse_axis] = rng.uniform(5.0, 9.0), rng.integers(8, 20)
    spacings = (spacing * rng.uniform(0.8, 1.2, (n_cases, 3))).round(4)
    shapes = np.maximum(8, (shape * rng.uniform(0.8, 1.2, (n_cases, 3))).astype(int))
    owned = rng.permutation([m for m in CANONICAL if rng.random() < 0.6] or ["FLAIR"])
    intensities = {str(m): rng.normal(rng.uniform(0, 900), 50, 200 * n_cases) for m in owned}
    return SiteCases(spacings, shapes, rng.uniform(0.4, 1.0, n_cases).round(4), intensities)


def random_federation(n_sites):
    """Sites with 1 to 6 cases, in every second federation of thick slices; the first has 1 case, every modality."""
    rng = np.random.default_rng(n_sites)
    coarse_axis = rng.integers(3) if n_sites % 2 else None
    sites = [random_site(rng, n_cases, coarse_axis) for n_cases in (1, *rng.integers(1, 7, n_sites - 1))]
    for modality in ("FLAIR", "T1", "CT"):
        sites[0].intensities.setdefault(modality, rng.normal(100, 10, 500))
    return sites


def reported_plans(sites, terms):
    pooled = pool([first_report(site, RESOLUTION) for site in sites])
    request = planning_request(pooled)
    answers = [second_report(site, request, RESOLUTION) for site in sites]
    fingerprint = pooled_fingerprint(pooled, request, answers, CANONICAL)
    return pooled_plans(fingerprint, pooled.n_cases, terms, VOCABULARY, gpu_memory_gb=2.0)


def planned_with_all_cases(sites, modalities, terms, nnunet_paths):
    """The stock flow: a dataset with this site's channels, and the fingerprint of the cases of all sites."""
    name = "Dataset001_x"
    for folder in (nnunet_paths.raw, nnunet_paths.preprocessed):
        (folder / name).mkdir(exist_ok=True)
    description = {
        "channel_names": dict(enumerate(modalities)),
        "labels": terms.labels,
        "numTraining": sum(len(site.shapes_after_crop) for site in sites),
        "file_ending": ".nii.gz",
        "dataset": {},
        "fedmepd": {"canonical_modalities": CANONICAL, "modality_aliases": {"t2 flair": "FLAIR"}},
    }
    if terms.regions_class_order:
        description["regions_class_order"] = terms.regions_class_order
    values = {m: np.concatenate([s.intensities[m] for s in sites if m in s.intensities]) for m in modalities}
    fingerprint = {
        "spacings": np.concatenate([s.spacings_mm for s in sites]).tolist(),
        "shapes_after_crop": np.concatenate([s.shapes_after_crop for s in sites]).tolist(),
        "foreground_intensity_properties_per_channel": {
            str(i): intensity_statistics(values[m]) for i, m in enumerate(modalities)
        },
        "median_relative_size_after_cropping": float(np.median(np.concatenate([s.relative_sizes for s in sites]))),
    }
    (nnunet_paths.raw / name / "dataset.json").write_text(json.dumps(description))
    (nnunet_paths.preprocessed / name / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    FedMEPDPlanner(name, gpu_memory_target_in_gb=2.0).plan_experiment()
    return preprocessed_json(name, "FedMEPDPlans.json")


def assert_equal_up_to_rounding(found, expected):
    """Intensities are told by histograms, medians of spacings by two formulas; all else is equal."""
    found, expected = dict(found), dict(expected)
    intensities = [plans.pop("foreground_intensity_properties_per_channel") for plans in (found, expected)]
    spacings = [plans.pop("original_median_spacing_after_transp") for plans in (found, expected)]
    assert found == expected
    assert spacings[0] == pytest.approx(spacings[1], rel=1e-12)
    assert list(intensities[0]) == list(intensities[1])
    for channel, properties in intensities[1].items():
        for name in ("mean", "std", "min", "max"):
            assert intensities[0][channel][name] == pytest.approx(properties[name], rel=1e-9)


@pytest.mark.parametrize(("n_sites", "terms"), [*((n, PLAIN) for n in range(2, 10)), (3, REGIONS)])
def test_every_site_gets_the_plan_of_all_cases_for_its_own_channels(n_sites, terms, nnunet_paths):
    sites = random_federation(n_sites)
    pooled = reported_plans(sites, terms)
    for site in (sites[0], sites[-1]):
        modalities = tuple(site.intensities)
        expected = planned_with_all_cases(sites, modalities, terms, nnunet_paths)
        assert_equal_up_to_rounding(plans_for_site(pooled, "Dataset001_x", modalities, "SimpleITKIO"), expected)


def test_the_random_federations_exercise_both_branches_of_the_anisotropy_rule_and_other_channel_orders():
    branches, orders = set(), set()
    for n_sites in range(2, 10):
        sites = random_federation(n_sites)
        pooled = pool([first_report(site, RESOLUTION) for site in sites])
        branches.add(planning_request(pooled).target_spacing_mm == pooled.spacing_median_mm)
        orders.add(tuple(sites[0].intensities))
    assert branches == {True, False}
    assert any(order != CANONICAL for order in orders)


def test_a_copy_selects_and_reorders_what_belongs_to_channels_and_keeps_the_rest():
    pooled = reported_plans(random_federation(3), PLAIN)
    own = plans_for_site(pooled, "Dataset007_y", ("FLAIR", "CT"), "NibabelIO")
    whole, part = (plans["configurations"]["3d_fullres"] for plans in (pooled, own))
    assert whole["normalization_schemes"] == [
        "TissueZScoreNormalization",
        "CTNormalization",
        "TissueZScoreNormalization",
    ]
    assert part["normalization_schemes"] == ["TissueZScoreNormalization", "CTNormalization"]
    assert part["use_mask_for_norm"] == [whole["use_mask_for_norm"][i] for i in (2, 1)]
    intensities = "foreground_intensity_properties_per_channel"
    assert own[intensities] == {"0": pooled[intensities]["2"], "1": pooled[intensities]["1"]}
    assert part["architecture"]["arch_kwargs"].pop("modalities") == ["FLAIR", "CT"]
    assert whole["architecture"]["arch_kwargs"].pop("modalities") == list(CANONICAL)
    assert part["architecture"] == whole["architecture"]
    assert (own["dataset_name"], own["image_reader_writer"]) == ("Dataset007_y", "NibabelIO")
    assert own["fedmepd"] == pooled["fedmepd"]
    assert {key: part[key] for key in ("spacing", "patch_size", "batch_size")} == {
        key: whole[key] for key in ("spacing", "patch_size", "batch_size")
    }


def test_a_modality_that_was_not_planned_is_refused():
    pooled = reported_plans(random_federation(2), PLAIN)
    with pytest.raises(ModalityError, match=r"Dataset007_y has modalities \['PET'\] that were not planned"):
        plans_for_site(pooled, "Dataset007_y", ("T1", "PET"), "SimpleITKIO")


def test_planning_leaves_the_environment_and_the_folders_as_they_were(nnunet_paths, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    reported_plans(random_federation(2), PLAIN)
    assert list(nnunet_paths.raw.iterdir()) == list(nnunet_paths.preprocessed.iterdir()) == []
    assert open_raw_dataset(write_site(Site("a", ("T1",)), 1), VOCABULARY).folder.parent == nnunet_paths.raw


def test_an_unknown_planner_is_named():
    with pytest.raises(ConfigurationError, match="Planner 'OtherPlanner' is unknown"):
        pooled_plans({}, 1, PLAIN, VOCABULARY, "OtherPlanner")


def test_a_site_names_its_modalities_labels_and_ending_before_planning():
    description = {"labels": {"background": 0, "whole": [1, 2]}, "regions_class_order": [1], "file_ending": ".mha"}
    assert site_terms(description, ("T1", "CT")).describe() == [
        "modalities: T1, CT",
        'labels: {"background": 0, "whole": [1, 2]}',
        "regions_class_order: [1]",
        "file ending: .mha",
    ]


def opened(**changes):
    site = Site(**{"name": "a", "channels": ("FLAIR", "T1"), "spacing": (2.0, 1.0, 0.5), **changes})
    return open_raw_dataset(write_site(site, 1), VOCABULARY)


def test_cases_are_told_by_canonical_name_in_the_readers_axis_order():
    dataset = opened(n_cases=1)
    renamed = {**dataset.description, "channel_names": {"0": "t2_flair", "1": "t1"}}
    (dataset.folder / "dataset.json").write_text(json.dumps(renamed))
    cases = site_cases(open_raw_dataset(dataset.name, VOCABULARY))
    assert cases.spacings_mm.tolist() == [[2.0, 1.0, 0.5]]
    assert set(cases.intensities) == {"T1", "FLAIR"}
    assert 400 < np.median(cases.intensities["FLAIR"]) < 440
    assert 100 < np.median(cases.intensities["T1"]) < 140


def test_a_sites_own_fingerprint_is_that_of_nnunets_command():
    dataset = opened()
    expected = FedMEPDFingerprintExtractor(dataset.name, 1).run()
    assert site_fingerprint(site_cases(dataset), dataset.modalities) == expected


def test_cases_are_read_once_and_again_when_a_file_changed():
    dataset, read = opened(), []
    first = site_cases(dataset, 1, lambda: read.append(1))
    again = site_cases(dataset, 1, lambda: read.append(1))
    assert len(read) == 2
    assert first.shapes_after_crop.tolist() == again.shapes_after_crop.tolist()
    assert all(np.array_equal(first.intensities[m], again.intensities[m]) for m in dataset.modalities)
    image = dataset.folder / "imagesTr" / "a0_0000.nii.gz"
    image.write_bytes((dataset.folder / "imagesTr" / "a0_0001.nii.gz").read_bytes())
    changed = site_cases(dataset, 1, lambda: read.append(1))
    assert len(read) == 4
    assert changed.intensities["FLAIR"].mean() < first.intensities["FLAIR"].mean()


def test_kept_cases_that_are_damaged_are_made_again():
    dataset = opened()
    first = site_cases(dataset)
    kept = dataset.preprocessed / CACHE
    kept.write_bytes(kept.read_bytes()[:500])
    assert np.array_equal(site_cases(dataset).spacings_mm, first.spacings_mm)


def test_an_image_that_cannot_be_read_is_named_with_its_case():
    dataset = opened()
    (dataset.folder / "imagesTr" / "a1_0001.nii.gz").write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match=r"(?s)A training case cannot be read\n  case: a1.*a1_0001.nii.gz"):
        site_cases(dataset)


def test_a_channel_that_is_blank_in_every_case_is_refused():
    dataset = opened(n_cases=1)
    image = str(dataset.folder / "imagesTr" / "a0_0001.nii.gz")
    SimpleITK.WriteImage(SimpleITK.ReadImage(image) * 0, image)
    with pytest.raises(DatasetError, match="Modality T1 has no foreground voxel with a signal"):
        site_cases(dataset)


def plans_of(dataset):
    cases = site_cases(dataset)
    pooled = pool([first_report(cases, RESOLUTION)])
    request = planning_request(pooled)
    answer = second_report(cases, request, RESOLUTION)
    vocabulary = ModalityVocabulary(("T1", "FLAIR"))
    terms = site_terms(dataset.description, dataset.modalities)
    planned = pooled_plans(
        pooled_fingerprint(pooled, request, [answer], vocabulary.canonical), pooled.n_cases, terms, vocabulary
    )
    return plans_for_site(planned, dataset.name, dataset.modalities, dataset.reader.__name__)


def adopt(dataset, plans):
    return adopt_plans(dataset, site_cases(dataset), plans, "3d_fullres")


def test_plans_are_adopted_once():
    dataset = opened()
    plans = plans_of(dataset)
    assert adopt(dataset, plans) == Adopted(True, 2)
    assert adopt(dataset, plans) == Adopted(False, 0)
    names = {path.name for path in dataset.preprocessed.iterdir()}
    data = "FedMEPDPlans_3d_fullres"
    files = {"FedMEPDPlans.json", "dataset.json", "dataset_fingerprint.json", CACHE}
    assert names == files | {data, "gt_segmentations"}
    folder = dataset.preprocessed / data
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        f"a{i}{ending}" for i in (0, 1) for ending in (".b2nd", "_seg.b2nd", ".pkl")
    }
    assert sorted(infer_dataset_class(str(folder)).get_identifiers(str(folder))) == ["a0", "a1"]
    assert {path.name for path in (dataset.preprocessed / "gt_segmentations").iterdir()} == {"a0.nii.gz", "a1.nii.gz"}


def test_another_spacing_preprocesses_again_and_another_network_does_not():
    dataset = opened()
    plans = plans_of(dataset)
    adopt(dataset, plans)
    configuration = plans["configurations"]["3d_fullres"]
    configuration["batch_size"] += 1
    configuration["architecture"]["arch_kwargs"]["n_anchors_per_class"] = 7
    assert adopt(dataset, plans) == Adopted(True, 0)
    configuration["spacing"][0] = 1.0
    assert adopt(dataset, plans) == Adopted(True, 2)


def test_cases_that_nnunets_command_preprocessed_by_other_plans_are_preprocessed_again():
    dataset = opened()
    plans, folder = plans_of(dataset), dataset.preprocessed / "FedMEPDPlans_3d_fullres"

    def shape():
        return nnUNetDatasetBlosc2(str(folder)).load_case("a0")[0].shape

    adopt(dataset, plans)
    planned = shape()
    FedMEPDPlanner(dataset.name, overwrite_target_spacing=[2.0, 2.0, 2.0]).plan_experiment()
    FedMEPDPreprocessor(verbose=False).run(dataset.name, "3d_fullres", "FedMEPDPlans", 1)
    assert shape() != planned
    assert adopt(dataset, plans) == Adopted(True, 2)
    assert shape() == planned


def test_preprocessing_that_was_interrupted_leaves_nothing_to_train_on_and_is_done_again():
    dataset = opened()
    plans, data = plans_of(dataset), dataset.preprocessed / "FedMEPDPlans_3d_fullres"
    adopt(dataset, plans)
    plans["configurations"]["3d_fullres"]["spacing"][0] = 1.0

    def interrupted(work, cases):
        for case in cases:
            yield work(case)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adopt_plans(dataset, site_cases(dataset), plans, "3d_fullres", interrupted)
    assert not data.exists()
    assert adopt(dataset, plans) == Adopted(False, 2)
    assert len(list(data.glob("*.*"))) == 6
    assert not data.with_name(f"{data.name}.partial").exists()


def test_a_preprocessed_case_that_was_lost_is_noticed():
    dataset = opened()
    plans = plans_of(dataset)
    adopt(dataset, plans)
    (dataset.preprocessed / "FedMEPDPlans_3d_fullres" / "a1.pkl").unlink()
    assert adopt(dataset, plans) == Adopted(False, 2)


def test_splits_that_came_with_the_dataset_are_copied_and_must_not_change():
    dataset = opened()
    plans, splits = plans_of(dataset), [{"train": ["a0"], "val": ["a1"]}]
    (dataset.folder / "splits_final.json").write_text(json.dumps(splits))
    adopt(dataset, plans)
    used = dataset.preprocessed / "splits_final.json"
    assert json.loads(used.read_text()) == splits
    used.write_text(json.dumps([{"train": ["a1"], "val": ["a0"]}]))
    with pytest.raises(DatasetError, match="are not those that were used before"):
        adopt(dataset, plans)


def test_a_configuration_that_was_not_planned_is_refused():
    dataset = opened()
    with pytest.raises(ConfigurationError, match=r"'3d_lowres' was not planned.*'2d', '3d_fullres'"):
        adopt_plans(dataset, site_cases(dataset), plans_of(dataset), "3d_lowres")


def test_a_dataset_that_does_not_exist_is_named():
    with pytest.raises(ConfigurationError, match="Could not find a dataset with the ID 77"):
        open_raw_dataset(77, VOCABULARY)
    with pytest.raises(ConfigurationError, match="Dataset 'Dataset078_x' was not found"):
        open_raw_dataset("Dataset078_x", VOCABULARY)


@pytest.mark.parametrize("lost", ["imagesTr/a1_0001.nii.gz", "labelsTr/a0.nii.gz"])
def test_a_lost_file_is_named(lost, nnunet_paths):
    name = write_site(Site("a", ("T1", "FLAIR")), 1)
    (nnunet_paths.raw / name / lost).unlink()
    with pytest.raises(DatasetError, match=lost.split("/")[1]):
        open_raw_dataset(1, VOCABULARY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numTraining": 5}, r"(?s)number of training cases.*expected: numTraining 2\n  found: 5"),
        ({"channel_names": {"0": "T1", "1": "PET"}}, "Unknown modality 'PET'"),
        ({"file_ending": ".xyz"}, "A dataset has no training case"),
        ({"dataset": {}}, "A dataset has no training case"),
    ],
)
def test_a_dataset_json_that_does_not_fit_its_files_is_refused(change, message, nnunet_paths):
    name = write_site(Site("a", ("T1", "FLAIR")), 1)
    file = nnunet_paths.raw / name / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises((DatasetError, ModalityError), match=message):
        open_raw_dataset(name, VOCABULARY)
