"""`fedmepd status`: how far a federated run is, also while it goes on."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", type=Path, help="folder of the run")


def run(args: argparse.Namespace) -> int:
    """Print the run's state, one line per site, and what privacy was spent."""
    from nnunet_fedmepd.commands.privacy_lines import spent_lines
    from nnunet_fedmepd.config.loading import parse_federation
    from nnunet_fedmepd.runtime.privacy_ledger import updates_sent
    from nnunet_fedmepd.runtime.run_folder import RunFolder

    folder = RunFolder(args.run)
    status, journal = folder.status(), folder.journal()
    console = Console(soft_wrap=True, highlight=False)
    console.print(headline(status, journal, time.time()))
    console.print(site_table(status, journal))
    federation = parse_federation(folder.started_with()["identity"]["federation"], str(args.run))
    for line in spent_lines(federation, lambda site: updates_sent(folder, site)):
        console.print(line, markup=False)
    return 0


def headline(status: Mapping[str, Any], journal: Sequence[Mapping[str, Any]], now: float) -> str:
    """Return one line: what the run is doing, and when it will be done."""
    done = f"{status['name']}: round {status['round']} of {status['rounds']}"
    if status["state"] == "finished":
        return f"{done}, finished"
    if not psutil.pid_exists(status["process"]):
        return f"{done}, stopped {duration(now - status['updated'])} ago; start the same command again to go on"
    if status["state"] == "ending":
        return f"{done}, all done; writing the models of {', '.join(status['training'])}"
    training = f", training {', '.join(status['training'])}" if status["training"] else ""
    seconds = _seconds_a_round(journal)
    left = (status["rounds"] - status["round"] + 0.5) * seconds if seconds else None
    return f"{done}{training}" + (f", about {duration(left)} left" if left is not None else "")


def site_table(status: Mapping[str, Any], journal: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row per site: its last round."""
    table = Table()
    for column in ("site", "rounds", "loss", "Dice", "personal", "s/round", "MB sent"):
        table.add_column(column, justify="left" if column == "site" else "right", no_wrap=True)
    for site in status["sites"]:
        turns = [line for line in journal if line["site"] == site and "train_loss" in line]
        refused = sum(1 for line in journal if line["site"] == site and "refused" in line)
        table.add_row(site, *(_cells(turns, refused) if turns else ["0", *["-"] * 5]))
    return table


def _cells(turns: Sequence[Mapping[str, Any]], refused: int) -> list[str]:
    last = turns[-1]
    personal = last["filters"] - last["shared_filters"]
    return [
        f"{len(turns)}" + (f" ({refused} refused)" if refused else ""),
        f"{last['train_loss']:.3f}",
        f"{last['pseudo_dice']:.3f}",
        f"{personal}/{last['filters']}",
        f"{sum(turn['seconds'] for turn in turns) / len(turns):.1f}",
        f"{sum(turn['bytes_sent'] for turn in turns) / 1e6:.1f}",
    ]


def _seconds_a_round(journal: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean time between two rounds' last lines; None before the second round's end."""
    ends: dict[int, float] = {}
    for line in journal:
        if "time" in line:
            ends[line["round"]] = max(line["time"], ends.get(line["round"], 0.0))
    if len(ends) < 2:
        return None
    return (max(ends.values()) - min(ends.values())) / (max(ends) - min(ends))


def duration(seconds: float) -> str:
    """Return a time in words, such as `12 min`."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{hours} h"
