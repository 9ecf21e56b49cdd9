"""The table of a profiled run: seconds a round, by phase, of every site and of the coordinator."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nnunet_fedmepd.runtime.profiling import PHASES

_WIDTH = 200


def show_profile(folder: Path, console: Console) -> None:
    """Print the table and write it down.

    Args:
        folder: RUN/profile.
        console: to print on.
    """
    file = folder / "turns.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    if not lines:
        console.print("Nothing was trained, so there is no profile.")
        return
    table = profile_table(lines)
    # A file or a pipe has no width: columns cut to nothing would be all that is left of the table.
    (console if console.is_terminal else Console(file=console.file, width=_WIDTH)).print(table)
    with (folder / "table.txt").open("w") as text:
        Console(file=text, width=_WIDTH).print(table)


def profile_table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """Return mean seconds a round, one row per party and one column per phase; last, shares of the time not waited."""
    phases = [phase for phase in PHASES if any(line["seconds"].get(phase, 0) >= 0.005 for line in lines)]
    table = Table(title="Seconds a round", title_justify="left")
    table.add_column("", no_wrap=True)
    for phase in (*phases, "all"):
        table.add_column(phase, justify="right")
    total = dict.fromkeys(phases, 0.0)
    for who in dict.fromkeys(line["who"] for line in lines):
        seconds = mean_seconds([line["seconds"] for line in lines if line["who"] == who])
        table.add_row(who, *(f"{seconds.get(phase, 0):.2f}" for phase in phases), f"{sum(seconds.values()):.2f}")
        for phase in phases:
            total[phase] += seconds.get(phase, 0)
    worked = sum(seconds for phase, seconds in total.items() if phase != "waiting") or 1.0
    shares = ("" if phase == "waiting" else f"{100 * total[phase] / worked:.1f} %" for phase in phases)
    table.add_section()
    table.add_row("share", *shares, "")
    return table


def mean_seconds(turns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each phase over a party's turns."""
    phases = dict.fromkeys(phase for turn in turns for phase in turn)
    return {phase: sum(turn.get(phase, 0.0) for turn in turns) / len(turns) for phase in phases}
