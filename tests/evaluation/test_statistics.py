"""Statistics against textbook numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_fedmepd.evaluation.statistics import (
    bootstrap_mean,
    holm,
    mean_over_seeds,
    sign_flip_p_value,
    signed_rank_p_value,
)


def test_seeds_are_averaged_within_a_case() -> None:
    assert mean_over_seeds({"one": [0.2, 0.4], "two": [1.0]}) == {"one": pytest.approx(0.3), "two": 1.0}


def test_the_interval_is_that_of_the_mean_over_cases() -> None:
    values = np.random.default_rng(3).normal(0.7, 0.1, 200)
    interval = bootstrap_mean([values])
    half = 1.96 * values.std() / math.sqrt(200)
    assert interval.mean == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=2e-3)
    assert bootstrap_mean([values]) == interval


def test_every_site_counts_the_same_and_cases_are_drawn_within_sites() -> None:
    interval = bootstrap_mean([[0.2] * 10, [0.8] * 2])
    assert interval == bootstrap_mean([[0.2] * 10, [0.8]])
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.5, 0.5, 0.5))


def test_with_one_case_a_site_there_is_no_interval() -> None:
    interval = bootstrap_mean([[0.2], [0.4]])
    assert interval.mean == pytest.approx(0.3)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_six_cases_all_better_have_the_smallest_p_that_six_cases_allow() -> None:
    better = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert signed_rank_p_value(better) == pytest.approx(2 / 2**6)
    assert signed_rank_p_value([-gain for gain in better]) == pytest.approx(2 / 2**6)
    assert sign_flip_p_value([better]) == pytest.approx(2 / 2**6)
    assert sign_flip_p_value([better[:4], better[4:]]) == pytest.approx(2 / 2**6)


def test_methods_that_never_differ_are_not_told_apart() -> None:
    assert signed_rank_p_value([0.0, 1e-17]) == 1
    assert sign_flip_p_value([[0.0, 1e-17], [0.0]]) == 1


def test_the_test_of_the_mean_of_sites_is_about_the_mean_of_sites() -> None:
    noise = np.random.default_rng(1).normal(0, 0.001, 100)
    sites = [list(noise - 0.01), [0.2, -0.1, 0.25, -0.05], [0.15, -0.2, 0.2, 0.05]]
    assert np.mean([np.mean(site) for site in sites]) > 0
    assert sign_flip_p_value(sites) > 0.3  # the large site's small losses, nearly all of the cases, do not decide
    assert sign_flip_p_value([[gain + 0.3 for gain in site] for site in sites]) < 0.001


def test_holm_multiplies_the_smallest_p_most_and_keeps_the_order() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})


def test_adjusted_p_values_end_at_one() -> None:
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1, "b": 1}
