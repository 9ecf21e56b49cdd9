"""What the benchmark says of its numbers: reached or not, worse than stored or not, memory counted once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.benchmarks import speed
from tests.benchmarks.aggregation_table import seconds_of_agreement
from tests.benchmarks.measurements import Measured, saved_bytes
from tests.benchmarks.speed import worsened


@pytest.mark.parametrize(
    ("value", "target", "higher_is_better", "reached"),
    [(3.0, 2.5, True, True), (2.0, 2.5, True, False), (0.3, 0.4, False, True), (0.5, 0.4, False, False)],
)
def test_a_target_is_reached_in_its_own_direction(value, target, higher_is_better, reached):
    assert Measured("x", value, "x", target, higher_is_better).reached is reached


def test_only_ratios_that_became_a_quarter_worse_are_told():
    rows = [
        Measured("faster", 2.0, "x", None, True),
        Measured("a bit slower", 0.8, "x", None, True),
        Measured("slower", 0.7, "x", None, True),
        Measured("larger", 1.3, "MB", None, False),
        Measured("a bit larger", 1.2, "MB", None, False),
        Measured("takes longer, as the machine is slower", 9.0, "s", None, False),
        Measured("new", 9.0, "x", None, False),
    ]
    stored = {row.name: 1.0 for row in rows if row.name != "new"}
    assert [row.name for row in worsened(rows, stored)] == ["slower", "larger"]


def test_the_command_fails_on_a_worse_ratio_only_where_it_is_to_check(monkeypatch, tmp_path):
    results = tmp_path / "speed.json"
    results.write_text('{"gain": 4.0}')
    monkeypatch.setattr(speed, "RESULTS", results)
    for measured, arguments, code in ((2.9, ["--check"], 1), (2.9, [], 0), (3.1, ["--check"], 0)):
        row = Measured("gain", measured, "x", 2.5, True)
        monkeypatch.setattr(speed, "rows_of", lambda table, repeats, row=row: [row])
        monkeypatch.setattr("sys.argv", ["speed", "--tables", "step", *arguments])
        assert speed.main() == code
    assert results.read_text() == '{"gain": 4.0}'


def test_saved_activations_are_counted_once_and_without_parameters():
    layer = nn.Linear(8, 8)
    inputs = torch.ones(4, 8)  # kept by both calls of the layer

    def forward() -> torch.Tensor:
        return (layer(inputs) + layer(inputs)).sum()

    assert saved_bytes(forward, layer) == inputs.nbytes


def test_agreement_is_timed_as_sites_judge_by_default():
    assert seconds_of_agreement() > 0
