"""What the pictures show, computed."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.report.anchors_picture import draw_anchors, project
from nnunet_fedmepd.evaluation.report.cases_picture import draw_case, typical_cases
from nnunet_fedmepd.evaluation.report.curves import running_mean
from nnunet_fedmepd.evaluation.report.filters_picture import (
    agreement_by_round,
    mean_agreement,
    overall_share,
    personal_shares,
)
from nnunet_fedmepd.evaluation.report.record import CaseImages
from tests.evaluation.report.made_up import SITES, record, turn


def test_shares_are_personal_filters_over_all_of_a_layer():
    run = record(3)
    np.testing.assert_allclose(personal_shares(run, "a"), [[1 / 8, 2 / 8, 3 / 8], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(overall_share(run, "a"), [1 / 16, 2 / 16, 3 / 16])


def test_a_round_that_a_site_missed_is_a_gap():
    run = record(turns=[turn("a", 1), turn("b", 2), turn("a", 3)])
    assert np.isnan(personal_shares(run, "a")[:, 1]).all()
    assert np.isnan(run.by_round("a", "train_loss")).tolist() == [False, True, False]


def test_agreement_belongs_to_the_round_before_the_turn_that_reports_it():
    np.testing.assert_allclose(agreement_by_round(record(3), "a"), [(-0.1 * 8 + 1) / 12, (-0.15 * 8 + 1) / 12, np.nan])


def test_mean_agreement_is_over_the_last_ten_judgements_and_knows_no_layer_without_shared_filters():
    means = mean_agreement(record(20), "a")
    np.testing.assert_allclose(means, [-0.05 * np.mean(range(11, 21)), 0.25, np.nan])


def test_a_running_mean_leaves_gaps_out_and_does_not_bend_at_the_ends():
    np.testing.assert_allclose(running_mean(np.array([1, np.nan, 3, 8.0]), 1), [1, np.nan, 4, 8])
    assert np.isnan(running_mean(np.full(3, np.nan), 1)).all()


def test_best_median_and_worst_are_by_dice():
    assert typical_cases({"x": 0.5, "y": 0.9, "z": 0.1, "u": 0.6, "v": 0.2}) == {
        "best": "y",
        "median": "x",
        "worst": "z",
    }
    assert typical_cases({"x": 0.5, "y": 0.9}) == {"best": "y", "worst": "x"}
    assert typical_cases({"x": 0.5}) == {"only": "x"}


def test_principal_components_keep_what_distances_a_plane_can_hold():
    flat = np.random.default_rng(0).normal(size=(6, 2)) @ np.random.default_rng(1).normal(size=(2, 9))
    points, shares = project(flat)
    distances = np.linalg.norm(flat[:, None] - flat, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(points[:, None] - points, axis=-1), distances)
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("n_valid", [1, 2])
def test_very_few_anchors_can_be_drawn(n_valid):
    valid = np.arange(4).reshape(2, 2) < n_valid
    picture = draw_anchors(0, np.random.default_rng(0).normal(size=(2, 2, 8)), valid, ["background", "tumour"])
    assert picture.source.startswith("data:image/svg+xml")


def volume(file, voxels, spacing=(1.0, 1.0, 2.0)):
    image = SimpleITK.GetImageFromArray(voxels.astype(np.int16))
    image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(file))
    return file


def case(folder, prediction_shape=(6, 10, 8), tumour=3):
    labels = np.zeros((6, 10, 8))
    labels[2:4, 3:6, 2:6] = tumour
    files = (np.full((6, 10, 8), 50), labels, np.zeros(prediction_shape))
    names = ("image", "reference", "prediction")
    paths = [volume(folder / f"{name}.nii.gz", voxels) for name, voxels in zip(names, files, strict=True)]
    return CaseImages("FLAIR", *paths)


def test_a_case_is_drawn_also_when_it_has_no_tumour_at_all(tmp_path):
    with_tumour = draw_case(case(tmp_path), "x", "best: x", [1, 2, 3])
    assert with_tumour.source.startswith("data:image/jpeg")
    without = draw_case(case(tmp_path, tumour=0), "x", "best: x", [1, 2, 3])
    assert with_tumour.source != without.source


def test_a_prediction_of_another_shape_is_an_error_that_names_the_case(tmp_path):
    with pytest.raises(DatasetError, match=r"(?s)differ in shape.*case: x"):
        draw_case(case(tmp_path, prediction_shape=(6, 10, 9)), "x", "best: x", [1, 2, 3])


def test_every_site_of_a_run_has_its_own_line(tmp_path):
    from nnunet_fedmepd.evaluation.report.style import line_styles

    names = [f"site{i}" for i in range(24)]
    styles = line_styles(["lead", *names], ["lead"])
    looks = {(styles[name]["color"], styles[name]["linestyle"]) for name in ("lead", *names)}
    assert len(looks) == 25
    assert set(line_styles(SITES, ["lead"])) == set(SITES)
