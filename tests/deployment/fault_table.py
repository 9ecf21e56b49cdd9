"""The table of faults that the fault tests print when they have run."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console
from rich.table import Table


class FaultTable:
    """Prints what the tests added to it; a plugin of pytest."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Counter[str]] = {}

    def add(self, fault: str, outcome: str) -> None:
        """Count an outcome of a fault."""
        self._outcomes.setdefault(fault, Counter())[outcome] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table above pytest's own summary."""
        table = Table(title="Faults, on real processes on the loopback address", show_lines=True)
        for column in ("fault", "outcome", "times"):
            table.add_column(column)
        for fault, outcomes in self._outcomes.items():
            for outcome, times in outcomes.items():
                table.add_row(fault, outcome, str(times))
        text = io.StringIO()
        Console(file=text, width=130).print(table)
        terminalreporter.write(text.getvalue())


def table_of(config: pytest.Config) -> FaultTable:
    """Return the session's table."""
    name = "fedmepd-fault-table"
    table = config.pluginmanager.get_plugin(name)
    if table is None:
        table = FaultTable()
        config.pluginmanager.register(table, name)
    return table
