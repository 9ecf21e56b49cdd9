"""What the tables say, with means that can be checked by eye."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.table import Table

from nnunet_fedmepd.evaluation.printing import site_table, subset_table
from nnunet_fedmepd.evaluation.tables import CaseScore


def score(site: str, case: str, region: str, dice: float, modalities: str = "T1+T2") -> CaseScore:
    return CaseScore(site, case, modalities, region, dice, 10 * dice, dice, 1.0, 1.0, "model")


def printed(table: Table) -> list[list[str]]:
    """Return the cells of the body, line by line; empty ones are left out."""
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    body = console.file.getvalue().split("─ \n", 1)[1].split("A region in neither")[0]
    lines = [re.split(r"\s{2,}", line.strip()) for line in body.splitlines()]
    return [line for line in lines if any(line) and "──" not in line[0]]


def test_a_site_has_mean_and_deviation_over_cases_of_every_region_and_of_their_mean() -> None:
    scores = [
        *(score("a", "1", "whole", 0.5), score("a", "1", "core", 0.1)),
        *(score("a", "2", "whole", 0.7), score("a", "2", "core", 0.3)),
        *(score("b", "1", "whole", 1.0), score("b", "1", "core", 0.4)),
    ]
    scores += [score("lead", "1", "whole", 0.9), score("lead", "1", "core", 0.9)]
    table = printed(site_table(scores, "scores", leads=["lead"]))
    assert [row for row in table if "0.900" not in row] == [
        ["a", "whole", "0.600 ± 0.141", "6.0 ± 1.4", "0.600 ± 0.141"],
        ["T1+T2", "core", "0.200 ± 0.141", "2.0 ± 1.4", "0.200 ± 0.141"],
        ["2 cases", "mean", "0.400 ± 0.141", "4.0 ± 1.4", "0.400 ± 0.141"],
        ["b", "whole", "1.000", "10.0", "1.000"],
        ["T1+T2", "core", "0.400", "4.0", "0.400"],
        ["1 case", "mean", "0.700", "7.0", "0.700"],
        ["mean of sites", "whole", "0.800 ± 0.283", "8.0 ± 2.8", "0.800 ± 0.283"],
        ["without leads", "core", "0.300 ± 0.141", "3.0 ± 1.4", "0.300 ± 0.141"],
        ["± over sites", "mean", "0.550 ± 0.212", "5.5 ± 2.1", "0.550 ± 0.212"],
    ]


def test_subsets_have_a_dot_per_shown_modality() -> None:
    dice = {"T1": 0.2, "T2": 0.4, "T1+T2": 0.9}
    scores = [score("lead", case, "whole", value, subset) for subset, value in dice.items() for case in "12"]
    assert printed(subset_table(scores, ("T1", "T2"), "subsets")) == [
        ["●", "○", "0.200", "0.200"],
        ["○", "●", "0.400", "0.400"],
        ["●", "●", "0.900", "0.900"],
        ["mean", "0.500", "0.500"],
    ]
