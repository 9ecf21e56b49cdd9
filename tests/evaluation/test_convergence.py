"""How soon methods reach the baseline's plateau."""

from __future__ import annotations

import math
from pathlib import Path

from nnunet_fedmepd.evaluation.convergence import Convergence, CurvePoint, converge, write_curves


def curve(method: str, values: list[float], site: str = "a", seed: int = 1) -> list[CurvePoint]:
    return [CurvePoint(method, seed, site, 10 * (i + 1), value) for i, value in enumerate(values)]


def flat_at(level: float, reached_after: int, length: int = 20) -> list[float]:
    return [0.0] * reached_after + [level] * (length - reached_after)


def test_a_method_that_is_there_sooner_needs_fewer_steps() -> None:
    points = curve("local", flat_at(0.5, 10)) + curve("fast", flat_at(0.5, 2))
    local, fast = converge(points, "local")
    assert local == Convergence("a", "local", 150, 150)  # five rounds in a row at the level
    assert fast == Convergence("a", "fast", 70, 150)


def test_a_single_lucky_round_is_no_plateau() -> None:
    lucky = flat_at(0.3, 0)
    lucky[3] = 0.6
    (_, method) = converge(curve("local", flat_at(0.5, 10)) + curve("lucky", lucky), "local")
    assert math.isnan(method.steps)


def test_a_noisy_plateau_counts_from_just_below_its_top() -> None:
    slowly_better = [0.0] * 5 + [0.5 + 0.0005 * i for i in range(15)]
    (local,) = converge(curve("local", slowly_better), "local")
    assert local.steps == 100


def test_every_seed_is_measured_against_the_same_seed_of_the_baseline() -> None:
    points = [
        *curve("local", flat_at(0.5, 10), seed=1), *curve("local", flat_at(0.9, 10), seed=2),
        *curve("other", flat_at(0.5, 5), seed=1), *curve("other", flat_at(0.9, 9), seed=2),
    ]  # fmt: skip
    assert converge(points, "local")[1] == Convergence("a", "other", (100 + 140) / 2, 150)


def test_a_seed_that_never_gets_there_leaves_the_method_without_a_number() -> None:
    points = [
        *curve("local", flat_at(0.5, 10), seed=1), *curve("local", flat_at(0.9, 10), seed=2),
        *curve("other", flat_at(0.5, 5), seed=1), *curve("other", flat_at(0.5, 5), seed=2),
    ]  # fmt: skip
    assert math.isnan(converge(points, "local")[1].steps)


def test_a_site_without_the_baseline_is_left_out() -> None:
    assert converge(curve("other", [0.5]), "local") == []


def test_the_table_of_curves_is_complete(tmp_path: Path) -> None:
    write_curves(tmp_path / "curves.csv", curve("local", [0.25, 0.5]))
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert lines == ["method,seed,site,steps,pseudo_dice", "local,1,a,10,0.25", "local,1,a,20,0.5"]
