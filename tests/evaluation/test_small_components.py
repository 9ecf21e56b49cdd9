"""Limits and label maps small enough to count."""

import numpy as np
import pytest

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.metrics import dice
from nnunet_fedmepd.evaluation.small_components import (
    choose_limit,
    describe_limits,
    drop_small_components,
    find_components,
    read_limits,
    write_limits,
)
from nnunet_fedmepd.modalities import BRATS_REGIONS

CORE, EDEMA, ENHANCING = 1, 2, 3
ONE_ML = (10.0, 10.0, 10.0)


def row(text: str) -> np.ndarray:
    """Return a label map: `#` is label 1, a digit its own, anything else background."""
    return np.array([[[int(letter) if letter.isdigit() else int(letter == "#") for letter in text]]])


def case(reference: str, prediction: str):
    return find_components(row(reference), row(prediction), ONE_ML, {"tumour": (1,)}, "tumour")


def test_the_components_of_a_case_tell_dice_below_every_limit():
    reference, prediction = row("####...##."), row(".###..#..#")
    components = find_components(reference, prediction, (10.0, 10.0, 5.0), {"tumour": (1,)}, "tumour")
    assert sorted(components.ml) == [0.5, 0.5, 1.5]
    assert components.dice(0.0) == pytest.approx(dice(reference > 0, prediction > 0))
    assert components.dice(1.0) == pytest.approx(dice(reference > 0, row(".###......") > 0))
    assert case("....", ".#..").dice(1.5) == 1.0
    assert case("#...", "#.#.").dice(1.5) == 0.0


@pytest.mark.parametrize("region", BRATS_REGIONS)
@pytest.mark.parametrize("limit", [0.0, 1.5, 2.5, 4.5])
def test_regions_within_a_dropped_component_are_lost_with_it(region, limit):
    reference, prediction = row("22133.2.3..13.1"), row("221133.213.1.23")
    dropped = drop_small_components(prediction, ONE_ML, BRATS_REGIONS, {region: limit})
    expected = np.mean([dice(np.isin(reference, own), np.isin(dropped, own)) for own in BRATS_REGIONS.values()])
    components = find_components(reference, prediction, ONE_ML, BRATS_REGIONS, region)
    assert components.dice(limit) == pytest.approx(expected)


def test_what_nobody_annotated_does_not_count_but_a_component_is_as_large_as_it_is():
    reference, prediction = row("11.....9"), row("11..1111")
    components = find_components(reference, prediction, ONE_ML, {"tumour": (1,)}, "tumour", reference != 9)
    assert sorted(components.ml) == [2.0, 4.0]
    assert components.dice(0.0) == pytest.approx(2 * 2 / (2 + 5))


def test_components_that_touch_at_a_corner_are_one():
    mask = np.zeros((2, 2, 2), int)
    mask[0, 0, 0] = mask[1, 1, 1] = 1
    assert find_components(mask, mask, ONE_ML, {"tumour": (1,)}, "tumour").ml == pytest.approx([2.0])


def test_the_limit_lies_between_what_is_wrong_and_what_is_right():
    cases = [case("####.....", "####..#.."), case("####.....", "####..#..")]
    assert choose_limit(cases) == pytest.approx(2.0)  # the geometric middle of 1 and 4


@pytest.mark.parametrize(
    "cases",
    [
        [],
        [("####.....", "####..#..")],  # one case alone proves nothing
        [("####.....", "####..#.."), *[("####.....", "####.....")] * 5],  # nor does one of several
        [("####..#..", "####..#..")] * 2,  # small, and there
        [("####..#..", "####..#.#")] * 2,  # no limit parts them
        [(".........", "####.....")] * 2,  # nothing would be kept
    ],
)
def test_a_limit_that_does_not_surely_gain_is_not_chosen(cases):
    assert choose_limit([case(*texts) for texts in cases]) == 0.0


def test_a_limit_that_takes_more_of_a_region_inside_than_it_gains_is_not_chosen():
    texts = [("2222111111....3", "2222111111.1113")] * 3  # the false core lies beside all that truly enhances
    core = {"tumor_core": BRATS_REGIONS["tumor_core"]}
    alone = [find_components(row(a), row(b), ONE_ML, core, "tumor_core") for a, b in texts]
    assert choose_limit(alone) == pytest.approx((4 * 6) ** 0.5)
    cases = [find_components(row(a), row(b), ONE_ML, BRATS_REGIONS, "tumor_core") for a, b in texts]
    assert choose_limit(cases) == 0.0


def test_a_small_true_component_is_given_up_where_more_is_won():
    kept, won = ("####.....", "####....."), (".........", "#...#.##.")
    lost = ("########.#", "########.#")
    assert choose_limit([case(*texts) for texts in (won, won, won, lost, kept)]) == pytest.approx((2 * 4) ** 0.5)


def test_dropped_components_become_what_surrounds_them_in_the_hierarchy():
    labels = np.array([[[EDEMA, EDEMA, CORE, CORE, ENHANCING, 0, ENHANCING, ENHANCING]]])

    def dropped(**limits: float) -> list[int]:
        return drop_small_components(labels, ONE_ML, BRATS_REGIONS, limits).flatten().tolist()

    assert dropped(enhancing_tumor=1.0) == labels.flatten().tolist()  # not smaller
    assert dropped(enhancing_tumor=1.5) == [EDEMA, EDEMA, CORE, CORE, CORE, 0, ENHANCING, ENHANCING]
    assert dropped(tumor_core=2.5) == [EDEMA, EDEMA, CORE, CORE, ENHANCING, 0, EDEMA, EDEMA]
    assert dropped(whole_tumor=2.5) == [EDEMA, EDEMA, CORE, CORE, ENHANCING, 0, 0, 0]
    assert dropped(whole_tumor=9.0) == [0] * 8
    assert labels.flatten().tolist() == [EDEMA, EDEMA, CORE, CORE, ENHANCING, 0, ENHANCING, ENHANCING]


def test_labels_that_lie_in_no_region_but_their_own_become_background():
    labels = np.array([[[1, 2, 2]]])
    kept = drop_small_components(labels, ONE_ML, {"liver": (1,), "lesion": (2,)}, {"liver": 2.0})
    assert kept.flatten().tolist() == [0, 2, 2]


def test_limits_are_kept_in_a_file_that_is_checked(tmp_path):
    file = tmp_path / "small_components.json"
    with pytest.raises(DatasetError, match="--drop-small"):
        read_limits(file)
    write_limits(file, {"enhancing_tumor": 0.3, "tumor_core": 0.0})
    assert read_limits(file) == {"enhancing_tumor": 0.3, "tumor_core": 0.0}
    for text in ("[]", "{", '{"limits_ml": {"core": "much"}}'):
        file.write_text(text)
        with pytest.raises(DatasetError, match="holds no limits"):
            read_limits(file)


def test_what_is_dropped_is_told_in_words():
    assert describe_limits({"a": 0.32, "b": 0.0}) == "dropped: components of a below 0.32 ml"
    assert "nothing is dropped" in describe_limits({"a": 0.0})
