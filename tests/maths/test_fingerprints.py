"""Planning together: nnU-Net's own planner makes one plan of the pooled cases and of what the sites reported."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.maths.fingerprints import planning_request, pool, pooled_fingerprint, target_spacing
from nnunet_fedmepd.maths.planning_reports import (
    FirstReport,
    Histogram,
    IntensityMoments,
    PlanningResolution,
    SecondReport,
    SiteCases,
    first_report,
    second_report,
)
from nnunet_fedmepd.nnunet_plugin.planner import FedMEPDPlanner

RESOLUTION = PlanningResolution()
MODALITIES = ("T1", "FLAIR")


def site_cases(spacings, shapes, relative_sizes=None, **intensities):
    shapes = np.array(shapes)
    sizes = np.full(len(shapes), 0.5) if relative_sizes is None else np.array(relative_sizes)
    values = {modality: np.array(v, np.float32) for modality, v in intensities.items()}
    return SiteCases(np.array(spacings, float), shapes, sizes, values or {"T1": np.array([1.0, 2.0])})


def random_site(rng, on_grid):
    """Cases around a protocol of the site: isotropic, thick slices along any axis, or wildly mixed."""
    n_cases = int(rng.integers(1, 12))
    spacing, shape = rng.uniform(0.4, 2.0, 3), rng.integers(60, 300, 3)
    if rng.random() < 0.5:
        axis = rng.integers(3)
        spacing[axis], shape[axis] = rng.uniform(3.0, 9.0), rng.integers(10, 40)
    spread = rng.choice([0.0, 0.02, 0.4])
    spacings = spacing * rng.uniform(1 - spread, 1 + spread, (n_cases, 3))
    shapes = np.maximum(8, (shape * rng.uniform(0.8, 1.2, (n_cases, 3))).astype(int))
    owned = [m for m in MODALITIES if rng.random() < 0.7] or ["T1"]
    intensities = {m: rng.normal(rng.uniform(0, 900), rng.uniform(1, 90), 200 * n_cases) for m in owned}
    return SiteCases(
        spacings.round(4) if on_grid else spacings, shapes, rng.uniform(0.4, 1.0, n_cases).round(4), intensities
    )


def random_federation(seed, on_grid=True):
    rng = np.random.default_rng(seed)
    sites = [random_site(rng, on_grid) for _ in range(rng.integers(2, 10))]
    sites[0].intensities.update({m: rng.normal(100, 10, 500) for m in MODALITIES})
    return sites


def reported_fingerprint(sites, modalities=MODALITIES):
    pooled = pool([first_report(site, RESOLUTION) for site in sites])
    request = planning_request(pooled)
    answers = [second_report(site, request, RESOLUTION) for site in sites]
    return pooled_fingerprint(pooled, request, answers, modalities)


def statistics(values):
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    return {
        "mean": np.mean(values),
        "median": median,
        "std": np.std(values),
        "min": np.min(values),
        "max": np.max(values),
        "percentile_00_5": low,
        "percentile_99_5": high,
    }


def centralised_fingerprint(sites, modalities=MODALITIES):
    """What nnU-Net's extractor would write if all cases lay in one dataset."""
    values = {m: np.concatenate([s.intensities[m] for s in sites if m in s.intensities]) for m in modalities}
    return {
        "spacings": np.concatenate([s.spacings_mm for s in sites]).tolist(),
        "shapes_after_crop": np.concatenate([s.shapes_after_crop for s in sites]).tolist(),
        "foreground_intensity_properties_per_channel": {
            str(i): {k: float(v) for k, v in statistics(values[m]).items()} for i, m in enumerate(modalities)
        },
        "median_relative_size_after_cropping": float(np.median(np.concatenate([s.relative_sizes for s in sites]))),
    }


@pytest.fixture
def plan(nnunet_paths):
    """nnU-Net's stock planner, as a function of a fingerprint and the number of cases."""
    name = "Dataset001_Federation"
    for folder in ("imagesTr", "labelsTr"):
        (nnunet_paths.raw / name / folder).mkdir(parents=True)
    image = SimpleITK.GetImageFromArray(np.zeros((2, 2, 2), np.float32))
    for file in ("imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz"):
        SimpleITK.WriteImage(image, str(nnunet_paths.raw / name / file))
    (nnunet_paths.preprocessed / name).mkdir()

    def make(fingerprint, n_cases, planner=ExperimentPlanner):
        description = {
            "channel_names": dict(enumerate(MODALITIES)),
            "labels": {"background": 0, "tumour": 1},
            "numTraining": n_cases,
            "file_ending": ".nii.gz",
        }
        (nnunet_paths.raw / name / "dataset.json").write_text(json.dumps(description))
        (nnunet_paths.preprocessed / name / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
        with torch.device("meta"):  # the planner builds networks to measure them; their weights are not needed
            made = planner(name)
            made.plan_experiment()
        return json.loads((nnunet_paths.preprocessed / name / f"{made.plans_identifier}.json").read_text())

    return make


def without_information_only(plans):
    """Leave out what planning copies: intensities, compared by themselves, and the median spacing for the reader.

    The latter is computed by two different formulas of the median, which differ in the last bit.
    """
    copied = ("foreground_intensity_properties_per_channel", "original_median_spacing_after_transp")
    return {key: value for key, value in plans.items() if key not in copied}


@pytest.mark.parametrize("seed", range(30))
def test_a_federation_gets_the_plan_of_its_pooled_cases(seed, plan):
    sites = random_federation(seed)
    n_cases = sum(len(site.shapes_after_crop) for site in sites)
    reported = plan(reported_fingerprint(sites), n_cases)
    centralised = plan(centralised_fingerprint(sites), n_cases)
    assert without_information_only(reported) == without_information_only(centralised)
    assert reported["original_median_spacing_after_transp"] == pytest.approx(
        centralised["original_median_spacing_after_transp"], rel=1e-12
    )


def test_the_same_holds_for_the_planner_of_this_package(plan):
    sites = random_federation(2)
    n_cases = sum(len(site.shapes_after_crop) for site in sites)
    reported = plan(reported_fingerprint(sites), n_cases, FedMEPDPlanner)
    centralised = plan(centralised_fingerprint(sites), n_cases, FedMEPDPlanner)
    assert without_information_only(reported) == without_information_only(centralised)


@pytest.mark.parametrize("seed", range(100, 110))
def test_spacings_between_the_steps_move_the_plan_by_no_more_than_a_step(seed, plan):
    sites = random_federation(seed, on_grid=False)
    n_cases = sum(len(site.shapes_after_crop) for site in sites)
    reported = plan(reported_fingerprint(sites), n_cases)["configurations"]["3d_fullres"]
    centralised = plan(centralised_fingerprint(sites), n_cases)["configurations"]["3d_fullres"]
    assert reported["spacing"] == pytest.approx(centralised["spacing"], abs=1 / RESOLUTION.steps_per_mm)
    assert reported["median_image_size_in_voxels"] == pytest.approx(centralised["median_image_size_in_voxels"], abs=1)


@pytest.mark.parametrize("seed", range(30))
def test_intensities_are_pooled_exactly_up_to_one_bin_of_the_percentiles(seed):
    sites = random_federation(seed)
    reported = reported_fingerprint(sites)["foreground_intensity_properties_per_channel"]
    for channel, modality in enumerate(MODALITIES):
        values = np.concatenate([s.intensities[modality] for s in sites if modality in s.intensities])
        expected, found = statistics(values), reported[str(channel)]
        assert found.keys() == expected.keys()
        bin_width = (values.max() - values.min()) / RESOLUTION.intensity_bins
        for name in ("mean", "std", "min", "max"):
            assert found[name] == pytest.approx(expected[name], rel=1e-9)
        # Two neighbouring values may lie several bins apart, and nnU-Net interpolates between them.
        for name, percentile in (("percentile_00_5", 0.5), ("median", 50), ("percentile_99_5", 99.5)):
            below = np.percentile(values, percentile, method="lower") - bin_width
            above = np.percentile(values, percentile, method="higher") + bin_width
            assert below <= found[name] <= above


def test_the_random_federations_exercise_both_branches_of_the_anisotropy_rule():
    branches = set()
    for seed in range(30):
        pooled = pool([first_report(site, RESOLUTION) for site in random_federation(seed)])
        branches.add(planning_request(pooled).target_spacing_mm == pooled.spacing_median_mm)
    assert branches == {True, False}


def test_the_order_of_the_sites_does_not_matter_to_the_last_bit():
    sites = random_federation(3)
    assert reported_fingerprint(sites) == reported_fingerprint(sites[::-1])


def test_a_single_site_plans_as_if_alone(plan):
    sites = random_federation(1)[:1]
    n_cases = len(sites[0].shapes_after_crop)
    reported, alone = plan(reported_fingerprint(sites), n_cases), plan(centralised_fingerprint(sites), n_cases)
    assert without_information_only(reported) == without_information_only(alone)


def test_two_dimensional_images_are_planned_too(plan):
    sites = [site_cases([[999, 0.5, 0.5]] * 3, [[1, 200, 240 + i] for i in range(3)], T1=[1, 2], FLAIR=[3, 4])] * 2
    reported, centralised = plan(reported_fingerprint(sites), 6), plan(centralised_fingerprint(sites), 6)
    assert "3d_fullres" not in reported["configurations"]
    assert without_information_only(reported) == without_information_only(centralised)


def test_thick_slices_are_planned_at_their_tenth_percentile():
    spacing, percentile_10 = (6.0, 1.0, 0.9), (4.0, 0.9, 0.8)
    assert target_spacing(spacing, percentile_10, (20.0, 200.0, 190.0)) == (4.0, 1.0, 0.9)


def test_thick_slices_are_never_planned_finer_than_the_other_axes():
    assert target_spacing((0.9, 6.0, 1.0), (0.8, 0.5, 0.9), (200.0, 20.0, 190.0)) == (0.9, 1.0 + 1e-5, 1.0)


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [((3.0, 1.0, 0.9), (20.0, 200.0, 190.0)), ((6.0, 1.0, 0.9), (64.0, 200.0, 190.0))],
    ids=["only three times coarser", "with a third of the voxels"],
)
def test_otherwise_the_median_is_the_target(spacing, shape):
    assert target_spacing(spacing, (0.1, 0.1, 0.1), shape) == spacing


def test_a_first_report_counts_spacings_in_steps_axis_by_axis():
    cases = site_cases([[5, 0.9375, 1], [5, 0.93752, 1]], [[20, 256, 200], [22, 256, 190]], [0.5, 0.25], T1=[1, 2, 3])
    report = first_report(cases, RESOLUTION)
    assert report.spacings == (Histogram((50000,), (2,)), Histogram((9375,), (2,)), Histogram((10000,), (2,)))
    assert report.shapes == (Histogram((20, 22), (1, 1)), Histogram((256,), (2,)), Histogram((190, 200), (1, 1)))
    assert report.relative_sizes == Histogram((2500, 5000), (1, 1))
    assert report.intensities == {"T1": IntensityMoments(3, 6.0, 14.0, 1.0, 3.0)}


def test_a_second_report_counts_shapes_at_the_target_spacing_and_intensities_on_the_agreed_range():
    cases = site_cases([[2, 1, 1], [4, 1, 1]], [[20, 256, 200]] * 2, T1=[0, 1, 2, 4])
    resolution = PlanningResolution(intensity_bins=4)
    pooled = pool([first_report(cases, resolution)])
    request = dataclasses.replace(planning_request(pooled), target_spacing_mm=(3.0, 0.5, 1.0))
    report = second_report(cases, request, resolution)
    assert report.shapes == (Histogram((13, 27), (1, 1)), Histogram((512,), (2,)), Histogram((200,), (2,)))
    assert report.intensities == {"T1": (1, 1, 1, 1)}


def test_reports_say_line_by_line_what_leaves_the_site():
    cases = site_cases([[5, 0.5, 1], [5, 0.5, 1]], [[20, 256, 200], [22, 256, 200]], [0.5, 0.25], T1=[1, 2, 3])
    first = first_report(cases, RESOLUTION)
    assert first.describe() == [
        "training cases: 2",
        "spacing in mm, axis 0: 5 (x2)",
        "spacing in mm, axis 1: 0.5 (x2)",
        "spacing in mm, axis 2: 1 (x2)",
        "voxels after cropping, axis 0: 20 (x1), 22 (x1)",
        "voxels after cropping, axis 1: 256 (x2)",
        "voxels after cropping, axis 2: 200 (x2)",
        "relative size of the nonzero region: 0.25 (x1), 0.5 (x1)",
        "T1, 3 foreground voxels: sum 6, sum of squares 14, from 1 to 3",
    ]
    second = second_report(cases, planning_request(pool([first])), RESOLUTION)
    assert second.describe()[-1] == "T1: 4096 counts of intensities, 3 foreground voxels in all"


def test_the_fingerprint_for_all_sites_holds_statistics_and_no_case():
    sites = [site_cases([[1.0, 1.0, 1.0]], [[150, 180, 140]]), site_cases([[1.2, 1.0, 1.0]], [[120, 170, 137]])]
    fingerprint = reported_fingerprint(sites, ("T1",))
    rows = [tuple(row) for row in fingerprint["shapes_after_crop"]]
    assert len(rows) == 22
    assert not {(150, 180, 140), (120, 170, 137)} & set(rows)


def test_a_constant_intensity_has_itself_for_every_percentile():
    fingerprint = reported_fingerprint([site_cases([[1, 1, 1]], [[9, 9, 9]], T1=[7, 7, 7])], ("T1",))
    assert fingerprint["foreground_intensity_properties_per_channel"]["0"] == {
        "mean": 7, "median": 7, "std": 0, "min": 7, "max": 7, "percentile_00_5": 7, "percentile_99_5": 7
    }  # fmt: skip


def test_a_modality_that_nobody_owns_stops_the_plan():
    with pytest.raises(DatasetError, match="No site has a foreground voxel of modality T2"):
        reported_fingerprint(random_federation(0), ("T1", "T2"))


def test_a_site_without_foreground_of_a_modality_reports_nothing_of_it():
    cases = site_cases([[1, 1, 1]], [[9, 9, 9]], T1=[1, 2], FLAIR=[])
    assert list(first_report(cases, RESOLUTION).intensities) == ["T1"]


def test_a_spacing_below_the_resolution_is_refused():
    with pytest.raises(DatasetError, match=r"A spacing is 1e-05 mm\n  expected: .* declare a finer one"):
        first_report(site_cases([[1e-5, 1, 1]], [[9, 9, 9]]), RESOLUTION)


@pytest.mark.parametrize("relative_sizes", [[np.nan], [1.5], [-0.5]])
def test_an_impossible_relative_size_is_refused(relative_sizes):
    with pytest.raises(DatasetError):
        first_report(site_cases([[1, 1, 1]], [[9, 9, 9]], relative_sizes), RESOLUTION)


def test_a_site_without_cases_and_a_federation_without_sites_are_refused():
    with pytest.raises(DatasetError):
        first_report(SiteCases(np.empty((0, 3)), np.empty((0, 3)), np.empty(0), {}), RESOLUTION)
    with pytest.raises(DatasetError, match="No site reported"):
        pool([])


def test_sites_that_report_at_different_resolutions_are_refused():
    sites = random_federation(0)[:2]
    finer = PlanningResolution(steps_per_mm=100_000)
    with pytest.raises(DatasetError, match="steps_per_mm=100000"):
        pool([first_report(sites[0], RESOLUTION), first_report(sites[1], finer)])


def test_a_site_missing_from_the_second_phase_is_noticed():
    sites = random_federation(0)
    pooled = pool([first_report(site, RESOLUTION) for site in sites])
    request = planning_request(pooled)
    answers = [second_report(site, request, RESOLUTION) for site in sites[1:]]
    with pytest.raises(DatasetError, match="second reports count"):
        pooled_fingerprint(pooled, request, answers, MODALITIES)


def test_intensities_that_changed_between_the_phases_are_noticed():
    cases = site_cases([[1, 1, 1]], [[9, 9, 9]], T1=[1, 2])
    request = planning_request(pool([first_report(cases, RESOLUTION)]))
    changed = dataclasses.replace(cases, intensities={"T1": np.array([1.0, 3.0])})
    with pytest.raises(DatasetError, match="changed between the phases"):
        second_report(changed, request, RESOLUTION)


@pytest.mark.parametrize(
    "malformed",
    [
        lambda: Histogram((2, 1), (1, 1)),
        lambda: Histogram((1,), (0,)),
        lambda: Histogram((-1,), (1,)),
        lambda: Histogram((1, 2), (1,)),
        lambda: IntensityMoments(0, 0.0, 0.0, 0.0, 0.0),
        lambda: IntensityMoments(1, float("nan"), 0.0, 0.0, 0.0),
        lambda: PlanningResolution(steps_per_mm=0),
        lambda: SecondReport(RESOLUTION, (), {}),
        lambda: SecondReport(RESOLUTION, (Histogram((1,), (1,)),) * 3, {"T1": (1, 2)}),
        lambda: FirstReport(RESOLUTION, 2, (Histogram((1,), (1,)),) * 3, (Histogram((1,), (2,)),) * 3,
                            Histogram((1,), (2,)), {}),
    ],
)  # fmt: skip
def test_a_malformed_report_cannot_be_made(malformed):
    with pytest.raises(DatasetError):
        malformed()
