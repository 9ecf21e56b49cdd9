"""How fast and small: the training step, the traffic, the aggregation, beside their targets.

    python -m tests.benchmarks.speed [--tables step traffic aggregation] [--repeats 5] [--check | --store]

One thread, processor time, medians of interleaved repeats: ratios bear a machine that others use, times do not.
`--check` exits with 1 where a ratio is 25 % worse than the stored one (results/speed.json), `--store` replaces what is
stored.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console

from nnunet_fedmepd.nnunet_plugin.host_memory import keep_freed_memory
from tests.benchmarks.aggregation_table import aggregation_rows
from tests.benchmarks.measurements import Measured, as_table
from tests.benchmarks.step_table import step_rows
from tests.benchmarks.traffic_table import traffic_rows
from tests.benchmarks.training_steps import SWITCHES

RESULTS = Path(__file__).parent / "results" / "speed.json"
TOLERANCE = 0.25
COMPARED_UNITS = ("x", "MB", "")  # those that do not depend on how fast the machine is


def main() -> int:
    """Measure, print, and compare or store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--repeats", type=int, default=5, help="of a training step")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a ratio is 25 %% worse than stored")
    parser.add_argument("--store", action="store_true", help="replace the stored numbers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as the trainer does; for every network here
    stored: dict[str, float] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    console, rows = Console(width=max(110, Console().width)), []
    for name in args.tables:
        own = list(rows_of(name, args.repeats))
        console.print(as_table(TITLES[name], own, stored))
        rows += own
    if args.store:
        RESULTS.write_text(json.dumps(stored | {row.name: float(f"{row.value:.4g}") for row in rows}, indent=1) + "\n")
    worse = worsened(rows, stored)
    for row in worse:
        console.print(f"WORSE: {row.name} is {row.value:.3g} {row.unit}, stored is {stored[row.name]:.3g}")
    return int(args.check and bool(worse))


TITLES = {
    "step": "Training step, CPU, against the published structure and nnU-Net's networks; switches: "
    + ", ".join(f"{name} {value}" for name, value in SWITCHES.items()),
    "traffic": "One site's update of a round",
    "aggregation": "Coordinator's sum of updates of 9.7 M parameters",
}


def rows_of(table: str, repeats: int) -> Iterator[Measured]:
    """Yield the numbers of a table."""
    if table == "step":
        yield from step_rows(48, 2, repeats)
        yield from step_rows(64, 1, repeats)
        return
    tables: dict[str, Callable[[], Iterator[Measured]]] = {"traffic": traffic_rows, "aggregation": aggregation_rows}
    yield from tables[table]()


def worsened(rows: list[Measured], stored: dict[str, float]) -> list[Measured]:
    """Return the numbers that are worse than stored by more than the tolerance."""
    return [
        row
        for row in rows
        if row.unit in COMPARED_UNITS and row.name in stored and row.worse_than(stored[row.name], TOLERANCE)
    ]


if __name__ == "__main__":
    sys.exit(main())
