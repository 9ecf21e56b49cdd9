"""What a comparison says about numbers that were made up for it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from nnunet_fedmepd.evaluation.comparison import ALL_SITES, Result, TrialScore, compare, write_comparison
from nnunet_fedmepd.evaluation.comparison_views import comparison_table, draw_comparison
from nnunet_fedmepd.evaluation.tables import CaseScore

BASE = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80]


def rows(
    method: str, sites: Mapping[str, Sequence[float]], seeds: Sequence[int] = (1,), checkpoint: str = "final"
) -> list[TrialScore]:
    """Return scores of two regions, 0.1 above and below the case's number."""
    return [
        TrialScore(
            method, seed, checkpoint, 100, CaseScore(site, f"case{i}", "T1", region, dice + off, 1, 1, 1, 1, "x")
        )
        for seed in seeds
        for site, values in sites.items()
        for i, dice in enumerate(values)
        for region, off in (("whole", 0.1), ("core", -0.1))
    ]


def only(results: Sequence[Result], site: str, method: str) -> Result:
    (found,) = (result for result in results if (result.site, result.method) == (site, method))
    return found


def plus(values: Sequence[float], gains: Sequence[float]) -> list[float]:
    return [value + gain for value, gain in zip(values, gains, strict=True)]


def test_a_method_is_tested_over_the_cases_that_it_shares_with_the_baseline() -> None:
    gains = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07]
    results = compare(rows("local", {"a": BASE}) + rows("ours", {"a": plus(BASE, gains)}), "local")
    ours = only(results, "a", "ours")
    assert ours.dice.mean == pytest.approx(0.69)
    assert ours.gain == pytest.approx(0.04)
    assert ours.p_value == pytest.approx(2 / 2**7)
    assert (ours.n_cases, ours.n_seeds, ours.steps) == (7, 1, 100)
    assert math.isnan(only(results, "a", "local").p_value)


def test_more_seeds_of_the_same_cases_make_nothing_more_certain() -> None:
    ours, seeds = {"a": plus(BASE, [0.02, -0.01, 0.03, 0.01, -0.005, 0.04, 0.015])}, range(20)
    once = compare(rows("local", {"a": BASE}) + rows("ours", ours), "local")
    often = compare(rows("local", {"a": BASE}, seeds) + rows("ours", ours, seeds), "local")
    one, many = only(once, "a", "ours"), only(often, "a", "ours")
    assert many.p_value == one.p_value
    assert (many.dice.low, many.dice.high) == pytest.approx((one.dice.low, one.dice.high))
    assert (many.n_seeds, many.seed_deviation) == (20, pytest.approx(0))


def test_seeds_are_averaged_within_a_case_and_their_spread_is_told() -> None:
    scores = rows("ours", {"a": [0.2, 0.4]}, [1]) + rows("ours", {"a": [0.4, 0.6]}, [2])
    (result,) = compare(scores, "local")
    assert result.dice.mean == pytest.approx(0.4)
    assert result.seed_deviation == pytest.approx(0.2 / math.sqrt(2))


def test_a_gain_is_that_over_the_same_seeds() -> None:
    local = rows("local", {"a": [0.2, 0.3]}, [1]) + rows("local", {"a": [0.6, 0.7]}, [2])
    ours = rows("ours", {"a": [0.5, 0.8]}, [2]) + rows("ours", {"a": [0.9, 0.9]}, [3])
    result = only(compare(local + ours, "local"), "a", "ours")
    assert result.dice.mean == pytest.approx(0.775)
    assert result.gain == pytest.approx(0.0)
    assert result.seed_gains == pytest.approx([0.0])


def test_without_a_common_seed_nothing_is_compared() -> None:
    sites = {"a": BASE, "b": BASE}
    result = only(compare(rows("local", sites, [1]) + rows("ours", sites, [2]), "local"), ALL_SITES, "ours")
    assert math.isnan(result.gain)
    assert math.isnan(result.p_value)


def test_every_seed_s_gain_is_told() -> None:
    better = {seed: {"a": plus(BASE, [seed / 10] * 7), "b": [0.5]} for seed in (1, 2)}
    scores = [row for seed, sites in better.items() for row in rows("ours", sites, [seed])]
    results = compare(rows("local", {"a": BASE, "b": [0.5]}, [1, 2]) + scores, "local")
    assert only(results, "a", "ours").seed_gains == pytest.approx([0.1, 0.2])
    assert only(results, ALL_SITES, "ours").seed_gains == pytest.approx([0.05, 0.1])


def test_every_site_counts_the_same_in_the_mean_but_leads_and_sites_that_some_method_lacks() -> None:
    sites = {"lead": [0.99], "a": [0.8] * 6, "b": [0.4] * 2}
    results = compare(rows("local", {**sites, "c": [0.9]}) + rows("ours", sites), "local", leads=["lead"])
    assert only(results, ALL_SITES, "local").dice.mean == pytest.approx(0.6)
    assert only(results, "lead", "ours").dice.mean == pytest.approx(0.99)
    assert [result.method for result in results if result.site == "c"] == ["local"]


def test_p_values_are_adjusted_for_the_number_of_methods_and_sites_but_the_mean_is_a_question_of_its_own() -> None:
    gains = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07]
    better = {"a": plus(BASE, gains), "b": plus(BASE, [gain + 0.005 for gain in gains])}
    scores = rows("local", {"a": BASE, "b": BASE}) + rows("one", better)
    scores += rows("two", {"a": BASE, "b": BASE})
    results = compare(scores, "local")
    assert only(results, "a", "one").p_value == pytest.approx(4 * 2 / 2**7)
    assert only(results, ALL_SITES, "one").p_value == pytest.approx(2 * 2 / 2**14)
    assert only(results, ALL_SITES, "two").p_value == 1


def test_checkpoints_are_compared_apart() -> None:
    scores = rows("local", {"a": [0.5]}) + rows("local", {"a": [0.7]}, checkpoint="best")
    assert [(r.checkpoint, pytest.approx(r.dice.mean)) for r in compare(scores, "local")] == [
        ("final", 0.5),
        ("best", 0.7),
    ]


def test_the_csv_has_a_row_per_score_with_the_training_it_comes_from(tmp_path: Path) -> None:
    write_comparison(tmp_path / "comparison.csv", rows("ours", {"a": [0.5]}, [7]))
    first, _ = csv.DictReader((tmp_path / "comparison.csv").open())
    assert {key: first[key] for key in ("method", "seed", "checkpoint", "steps", "site", "region", "dice")} == {
        **{"method": "ours", "seed": "7", "checkpoint": "final", "steps": "100"},
        **{"site": "a", "region": "whole", "dice": "0.6"},
    }


def test_table_and_figure_show_every_site_and_method(tmp_path: Path) -> None:
    sites = {"a": BASE, "b": [0.5]}
    results = compare(
        rows("local", sites, [1, 2]) + rows("ours", {**sites, "a": plus(BASE, [0.1] * 7)}, [1, 2]), "local"
    )
    console = Console(width=100, file=io.StringIO())
    console.print(comparison_table(results, "final", "local"))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    gain = ["+0.100", "+0.100", "to", "+0.100"]
    assert ["a", "local", "0.650", "[0.579,", "0.721]", "0.000", "-", "-", "-", "100"] in lines
    assert ["7", "cases", "ours", "0.750", "[0.679,", "0.821]", "0.000", *gain, "0.031", "100"] in lines
    assert ["1", "case", "ours", "0.500", "0.000", "+0.000", "+0.000", "to", "+0.000", "1.000", "100"] in lines
    assert draw_comparison(results, tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
