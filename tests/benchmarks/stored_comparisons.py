"""Compares what lies in `results` again: the differences in Dice that README.md tells, with their p values.

    python -m tests.benchmarks.stored_comparisons           Dice in the mean of sites and at the lead
    python -m tests.benchmarks.stored_comparisons --best    at each one's plateau
    python -m tests.benchmarks.stored_comparisons --sites   site by site, with p values adjusted (Holm) for the sites

Every line stands by itself, so its p value in the mean of sites is not adjusted. It is over cases, for the models that
were trained; where one seed was trained, another may give another difference.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from nnunet_fedmepd.evaluation.comparison import ALL_SITES, Result, TrialScore, compare
from nnunet_fedmepd.evaluation.tables import CaseScore

RESULTS = Path(__file__).parent / "results"
LEAD = "2013"
OF_SCORE = fields(CaseScore)


def scores(table: str, method: str, name: str) -> Iterator[TrialScore]:
    """Yield a method's scores in a stored table, under another method's name."""
    with (RESULTS / f"{table}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["method"] == method:
                score = {f.name: float(row[f.name]) if f.type == "float" else row.get(f.name, "") for f in OF_SCORE}
                yield TrialScore(name, int(row["seed"]), row["checkpoint"], int(row["steps"]), CaseScore(**score))


def difference(row: dict[str, str], checkpoint: str) -> list[Result]:
    """Return a method's results against its reference's, those of single sites and of the mean of sites.

    Args:
        row: of `differences.csv`; without seeds all that both have count.
        checkpoint: `final` or `best`.
    """
    both = [
        *scores(row["table"], row["method"], "changed"),
        *scores(row["reference_table"], row["reference"], "reference"),
    ]
    seeds = {int(seed) for seed in row["seeds"].split("+") if seed} or {score.seed for score in both}
    compared = [score for score in both if score.checkpoint == checkpoint and score.seed in seeds]
    return [result for result in compare(compared, "reference", {LEAD}) if result.method == "changed"]


def main() -> None:
    """Print every difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--best", action="store_true", help="at each one's plateau, not at the end of training")
    parser.add_argument("--sites", action="store_true", help="site by site")
    args = parser.parse_args()
    table = Table("topic", "changed", "seeds", "where", "Dice", "± seeds", "points", "of seeds", "p", box=MARKDOWN)
    with (RESULTS / "differences.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for result in difference(row, "best" if args.best else "final"):
            if args.sites or result.site in (LEAD, ALL_SITES):
                table.add_row(row["topic"], row["changed"], *_cells(result))
    Console(width=200).print(table)


def _cells(result: Result) -> list[str]:
    gains = [f"{100 * gain:+.1f}" for gain in result.seed_gains]
    return [
        str(len(gains)),
        result.site,
        f"{result.dice.mean:.3f}",
        "" if math.isnan(result.seed_deviation) else f"{100 * result.seed_deviation:.1f}",
        f"{100 * result.gain:+.1f}",
        " ".join(gains),
        "<0.001" if result.p_value < 0.001 else f"{result.p_value:.2g}",
    ]


if __name__ == "__main__":
    main()
