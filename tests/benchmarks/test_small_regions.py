"""Predictions that are too small count as none: right where there is nothing, wrong where there is something."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.benchmarks.small_regions import drop_small, site_means

ROWS = [  # case, region, Dice, reference and prediction in ml
    ("nothing there", "enhancing_tumor", 0.0, 0.0, 0.2),
    ("something there", "enhancing_tumor", 0.4, 0.3, 0.2),
    ("large", "enhancing_tumor", 0.8, 5.0, 6.0),
    ("none predicted", "enhancing_tumor", 0.0, 5.0, 0.0),
    ("another region", "tumor_core", 0.4, 0.3, 0.2),
]


@pytest.fixture
def scores() -> pd.DataFrame:
    table = pd.DataFrame(ROWS, columns=["case", "region", "dice", "reference_ml", "prediction_ml"])
    return table.assign(checkpoint="final", method="local", seed=1, site="a")


def test_only_small_predictions_of_the_region_are_dropped(scores):
    dropped = drop_small(scores, "enhancing_tumor", 0.3)
    assert dropped.dice.tolist() == [1.0, 0.0, 0.8, 0.0, 0.4]
    assert drop_small(scores, "enhancing_tumor", 0.0).dice.tolist() == scores.dice.tolist()


def test_sites_count_the_same_however_many_cases_they_have_and_the_lead_not(scores):
    others = [scores.assign(site=site, dice=dice) for site, dice in (("b", 1.0), ("lead", 0.5))]
    (means,) = site_means(pd.concat([scores, others[0].head(1), others[1]]), "lead").to_dict("records")
    assert means == pytest.approx({"a": 0.32, "b": 1.0, "lead": 0.5, "mean of sites": 0.66})
