"""A profiled run tells where its time went, and is otherwise the run that it would have been."""

from __future__ import annotations

import gzip
import io
import json

from rich.console import Console

from nnunet_fedmepd.runtime.profile_table import mean_seconds, profile_table, show_profile
from nnunet_fedmepd.runtime.running import run_federation
from tests.runtime.small_federation import CONSOLE, alike, final_weights, run, small_federation


def test_a_profiled_run_writes_table_and_traces_and_changes_no_weight(datasets, tmp_path):
    plain, profiled = tmp_path / "plain", tmp_path / "profiled"
    weights = run(small_federation(method={"codec": "int8"}), plain)
    assert not (plain / "profile").exists()
    federation = small_federation(method={"codec": "int8"})
    run_federation(federation, profiled, CONSOLE, overwrite=True, profiles=True)
    assert alike(weights, final_weights(federation))
    folder = profiled / "profile"
    lines = [json.loads(line) for line in (folder / "turns.jsonl").read_text().splitlines()]
    assert {(line["round"], line["who"]) for line in lines} == {
        (number, who) for number in (1, 2) for who in ("a", "b", "lead", "coordinator")
    }
    seconds = {line["who"]: line["seconds"] for line in lines}
    phases = {"data", "forward", "backward", "optimizer", "validation", "bookkeeping", "codec", "disk", "waiting"}
    assert phases <= set(seconds["a"])
    assert {"codec", "protocol", "disk", "waiting"} == set(seconds["coordinator"])
    for site in ("a", "b", "lead"):
        with gzip.open(folder / f"{site}.trace.json.gz", "rt") as file:
            assert any("conv" in event.get("name", "") for event in json.load(file)["traceEvents"])
    assert "coordinator" in (folder / "table.txt").read_text()


def test_the_table_has_means_by_party_and_shares_of_the_time_that_was_not_waited():
    lines = [
        {"who": "a", "seconds": {"forward": 1.0, "waiting": 50.0}},
        {"who": "a", "seconds": {"forward": 3.0, "codec": 2.0}},
        {"who": "b", "seconds": {"forward": 5.0}},
    ]
    assert mean_seconds([line["seconds"] for line in lines[:2]]) == {"forward": 2.0, "waiting": 25.0, "codec": 1.0}
    text = io.StringIO()
    Console(file=text, width=100).print(profile_table(lines))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.getvalue().splitlines()]
    assert ["a", "2.00", "1.00", "25.00", "28.00"] in rows
    assert ["b", "5.00", "0.00", "0.00", "5.00"] in rows
    assert ["share", "87.5 %", "12.5 %", "", ""] in rows


def test_a_table_printed_into_a_pipe_keeps_its_numbers(tmp_path):
    seconds = {"data": 1.25, "forward": 2.25, "backward": 3.25, "optimizer": 4.25, "validation": 5.25, "disk": 6.25}
    seconds |= {"bookkeeping": 7.25, "protocol": 8.25, "codec": 9.25, "waiting": 10.25, "tracing": 11.25}
    (tmp_path / "turns.jsonl").write_text(json.dumps({"who": "a" * 20, "seconds": seconds}))
    printed = io.StringIO()
    show_profile(tmp_path, Console(file=printed, width=80))
    assert all(f"{value:.2f}" in printed.getvalue() for value in seconds.values())
