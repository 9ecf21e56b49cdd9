"""Limits and label maps small enough to count."""

import numpy as np
import pytest

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.small_regions import (
    choose_limits,
    describe_limits,
    drop_small_regions,
    read_limits,
    write_limits,
)
from nnunet_fedmepd.evaluation.tables import CaseScore
from nnunet_fedmepd.modalities import BRATS_REGIONS

CORE, EDEMA, ENHANCING = 1, 2, 3


def scored(*cases: tuple[float, float, float], region: str = "enhancing_tumor") -> list[CaseScore]:
    """Return a row per (predicted ml, reference ml, Dice)."""
    return [
        CaseScore("a", f"case{i}", "T2", region, dice, 0.0, dice, reference, predicted, "")
        for i, (predicted, reference, dice) in enumerate(cases)
    ]


def test_the_limit_lies_between_what_is_wrong_and_what_is_right():
    limits = choose_limits(scored((0.1, 0.0, 0.0), (0.4, 0.0, 0.0), (1.6, 2.0, 0.8), (0.0, 0.0, 1.0)))
    assert limits == {"enhancing_tumor": pytest.approx(0.8)}  # the geometric middle of 0.4 and 1.6


@pytest.mark.parametrize(
    "cases",
    [
        ((0.1, 0.2, 0.6), (5.0, 5.0, 0.9)),  # small, and there
        ((0.1, 0.2, 0.6), (0.2, 0.4, 0.5), (0.3, 0.0, 0.0), (5.0, 5.0, 0.9)),  # costs more than it gains
        ((0.1, 0.0, 0.0),),  # nothing would be kept
        ((0.1, 0.0, 0.0), (0.1, 0.1, 0.5)),  # no limit parts them
    ],
)
def test_a_limit_that_gains_nothing_or_keeps_nothing_is_not_chosen(cases):
    assert choose_limits(scored(*cases)) == {"enhancing_tumor": 0.0}


def test_a_small_true_region_is_given_up_where_more_is_won_and_every_region_has_its_own_limit():
    enhancing = scored((0.1, 0.2, 0.3), (0.2, 0.0, 0.0), (0.8, 1.0, 0.9))
    core = scored((0.1, 0.2, 0.3), (0.8, 1.0, 0.9), region="tumor_core")
    assert choose_limits([*enhancing, *core]) == {"enhancing_tumor": pytest.approx(0.4), "tumor_core": 0.0}


def test_a_dropped_region_becomes_what_surrounds_it_in_the_hierarchy():
    labels = np.array([[[EDEMA, EDEMA, CORE, CORE, ENHANCING, 0]]])
    voxel = (10.0, 10.0, 10.0)  # 1 ml

    def dropped(**limits: float) -> list[int]:
        return drop_small_regions(labels, voxel, BRATS_REGIONS, limits).flatten().tolist()

    assert dropped(enhancing_tumor=1.0) == labels.flatten().tolist()  # not smaller
    assert dropped(enhancing_tumor=1.5) == [EDEMA, EDEMA, CORE, CORE, CORE, 0]
    assert dropped(tumor_core=3.5) == [EDEMA, EDEMA, EDEMA, EDEMA, EDEMA, 0]
    assert dropped(whole_tumor=5.5) == [0] * 6
    assert labels.flatten().tolist() == [EDEMA, EDEMA, CORE, CORE, ENHANCING, 0]


def test_labels_that_lie_in_no_region_but_their_own_become_background():
    labels = np.array([[[1, 2, 2]]])
    kept = drop_small_regions(labels, (10.0, 10.0, 10.0), {"liver": (1,), "lesion": (2,)}, {"liver": 2.0})
    assert kept.flatten().tolist() == [0, 2, 2]


def test_limits_are_kept_in_a_file_that_is_checked(tmp_path):
    file = tmp_path / "small_regions.json"
    with pytest.raises(DatasetError, match="--drop-small"):
        read_limits(file)
    write_limits(file, {"enhancing_tumor": 0.3, "tumor_core": 0.0})
    assert read_limits(file) == {"enhancing_tumor": 0.3, "tumor_core": 0.0}
    for text in ("[]", "{", '{"limits_ml": {"core": "much"}}'):
        file.write_text(text)
        with pytest.raises(DatasetError, match="holds no limits"):
            read_limits(file)


def test_what_is_dropped_is_told_in_words():
    assert describe_limits({"a": 0.32, "b": 0.0}) == "counted as none: a of less than 0.32 ml"
    assert "nothing is dropped" in describe_limits({"a": 0.0})
