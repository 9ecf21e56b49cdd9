"""The table of faults that the fault tests print when they have run."""

from __future__ import annotations

from collections import Counter

from rich.table import Table

from tests.deployment.printed_table import PrintedTable


class FaultTable(PrintedTable):
    """Counts the outcomes of every fault."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Counter[str]] = {}

    def add(self, fault: str, outcome: str) -> None:
        """Count an outcome of a fault."""
        self._outcomes.setdefault(fault, Counter())[outcome] += 1

    def table(self) -> Table:
        table = Table(title="Faults, on real processes on the loopback address", show_lines=True)
        for column in ("fault", "outcome", "times"):
            table.add_column(column)
        for fault, outcomes in self._outcomes.items():
            for outcome, times in outcomes.items():
                table.add_row(fault, outcome, str(times))
        return table
