"""The table of faults that the fault tests print when they have run."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from rich.table import Table

from tests.deployment.printed_table import PrintedTable

SAME = "same weights as undisturbed, to the bit"
_REPEATS = int(os.environ.get("FEDMEPD_FAULT_REPEATS", "1"))


def repeated() -> pytest.MarkDecorator:
    """Return the mark of tests that are repeated as often as the environment says; each takes the number `repeat`."""
    return pytest.mark.parametrize("repeat", range(_REPEATS), scope="module")


class FaultTable(PrintedTable):
    """Counts how often every fault ended as it must."""

    def __init__(self) -> None:
        self._outcomes: Counter[tuple[str, str]] = Counter()

    def add(self, fault: str, outcome: str) -> None:
        """Count an outcome of a fault."""
        self._outcomes[fault, outcome] += 1

    def table(self) -> Table:
        table = Table(title="Faults, on real processes", show_lines=True)
        for column in ("fault", "what became of it", f"times, of {_REPEATS}"):
            table.add_column(column)
        for (fault, outcome), times in self._outcomes.items():
            table.add_row(fault, outcome, str(times))
        return table
