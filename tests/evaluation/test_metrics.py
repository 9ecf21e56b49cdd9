"""Metrics against numbers worked out by hand, on boxes in a small grid."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_fedmepd.evaluation.metrics import diagonal_mm, score_region, score_regions

SHAPE = (30, 30, 30)
UNIT = (1.0, 1.0, 1.0)
NOTHING = np.zeros(SHAPE, bool)


def box(*corners: tuple[int, int], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Return a mask of one box, a (start, stop) per axis."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*corner) for corner in corners)] = True
    return mask


CUBE = box((5, 15), (5, 15), (5, 15))


def test_a_region_that_nobody_has_is_perfect() -> None:
    score = score_region(NOTHING, NOTHING, UNIT)
    assert (score.dice, score.hd95_mm, score.lesion_dice) == (1, 0, 1)


@pytest.mark.parametrize(("reference", "prediction"), [(CUBE, NOTHING), (NOTHING, CUBE)])
def test_a_region_that_only_one_has_scores_nothing_and_is_an_image_diagonal_away(reference, prediction) -> None:
    score = score_region(reference, prediction, (1, 1, 2))
    assert (score.dice, score.lesion_dice) == (0, 0)
    assert score.hd95_mm == 74  # sqrt(30^2 + 30^2 + 60^2) = 73.5


def test_the_penalty_of_brats_volumes_is_that_of_brats() -> None:
    assert diagonal_mm((240, 240, 155), UNIT) == 374


def test_dice_of_a_cube_shifted_by_half_its_side_is_a_half() -> None:
    assert score_region(CUBE, box((10, 20), (5, 15), (5, 15)), UNIT).dice == 0.5


def test_volumes_are_in_millilitres() -> None:
    score = score_region(CUBE, NOTHING, (2, 2, 2))
    assert (score.reference_ml, score.prediction_ml) == (8, 0)


@pytest.mark.parametrize(("axis", "spacing"), [(0, 1.0), (1, 2.0), (2, 3.0)])
def test_hd95_of_two_parallel_plates_is_their_distance_in_mm(axis: int, spacing: float) -> None:
    plates = [np.moveaxis(box((at, at + 1), (0, 30), (0, 30)), 0, axis) for at in (4, 9)]
    spacing_mm = [spacing if a == axis else 1.0 for a in range(3)]
    assert score_region(*plates, spacing_mm).hd95_mm == pytest.approx(5 * spacing)


@pytest.mark.parametrize(("n_outliers", "expected"), [(4, 0.0), (6, 10.0)])
def test_hd95_leaves_out_the_farthest_twentieth_of_the_surface(n_outliers: int, expected: float) -> None:
    row = box((0, 1), (0, 1), (0, 100 - n_outliers), shape=(12, 1, 100))
    prediction = row | box((10, 11), (0, 1), (0, n_outliers), shape=(12, 1, 100))
    assert score_region(row, prediction, UNIT).hd95_mm == pytest.approx(expected)


def test_a_2d_image_has_a_contour_not_a_surface() -> None:
    shape = (1, 20, 20)
    filled, ring = box((0, 1), (5, 15), (5, 15), shape=shape), box((0, 1), (5, 15), (5, 15), shape=shape)
    ring[0, 6:14, 6:14] = False
    assert score_region(filled, ring, UNIT).hd95_mm == 0


TWO = box((2, 8), (2, 8), (2, 8)) | box((20, 26), (20, 26), (20, 26))


def test_a_missed_lesion_counts_nothing() -> None:
    assert score_region(TWO, box((2, 8), (2, 8), (2, 8)), UNIT).lesion_dice == 0.5


def test_every_false_positive_counts_as_a_lesion() -> None:
    prediction = TWO | box((2, 3), (20, 21), (20, 21)) | box((20, 21), (2, 3), (2, 3))
    assert score_region(TWO, prediction, UNIT).lesion_dice == 0.5


def test_lesions_whose_dilations_touch_are_one() -> None:
    near = box((2, 8), (2, 8), (2, 8)) | box((13, 19), (2, 8), (2, 8))  # dilated by 3: 2..11 and 10..22
    prediction = box((2, 8), (2, 8), (2, 8))
    assert score_region(near, prediction, UNIT).lesion_dice == pytest.approx(2 / 3)
    assert score_region(near, prediction, (3, 3, 3)).lesion_dice == 0.5  # 3 mm are one voxel


def test_a_prediction_within_3_mm_belongs_to_the_lesion() -> None:
    reference = box((2, 8), (2, 8), (2, 8))
    assert score_region(reference, reference | box((10, 13), (2, 8), (2, 8)), UNIT).lesion_dice == pytest.approx(0.8)
    assert score_region(reference, reference | box((12, 15), (2, 8), (2, 8)), UNIT).lesion_dice == 0.5


def test_a_reference_lesion_of_50_cubic_mm_does_not_count() -> None:
    reference = box((2, 8), (2, 8), (2, 8)) | box((20, 25), (20, 25), (20, 22))  # 5 * 5 * 2 = 50
    prediction = box((2, 8), (2, 8), (2, 8))
    assert score_region(reference, prediction, UNIT).lesion_dice == 1
    assert score_region(reference, prediction, (1, 1, 1.1)).lesion_dice == 0.5


def test_regions_are_unions_of_labels_and_what_nobody_annotated_is_not_scored() -> None:
    reference, prediction = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    reference[0:2], reference[2:4], reference[4:6] = 1, 2, 4
    prediction[0:4], prediction[4:6] = 1, 2
    regions = {"whole": (1, 2), "core": (1,)}
    scores = score_regions(reference, prediction, UNIT, regions, ignore_label=4)
    assert {name: score.dice for name, score in scores.items()} == {"whole": 1, "core": pytest.approx(2 / 3)}
    assert score_regions(reference, prediction, UNIT, regions)["whole"].dice == 0.8
