"""The table of attacks that the security tests print when they have run."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One attack.

    Attributes:
        attack: what was tried.
        measure: what stands against it.
        result: how it ended with the measure.
        without: how it ended without.
    """

    attack: str
    measure: str
    result: str
    without: str


class SecurityTable:
    """Prints what the tests added to it; a plugin of pytest."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, attack: str, measure: str, result: str, without: str) -> None:
        """Add a row."""
        self.rows.append(Row(attack, measure, result, without))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table below pytest's own summary."""
        table = Table(title="Security, on real processes on the loopback address")
        for column in ("attack", "what stands against it", "with it", "without it"):
            table.add_column(column, overflow="fold")
        for row in self.rows:
            table.add_row(row.attack, row.measure, row.result, row.without)
        Console(file=terminalreporter._tw._file, width=150).print(table)


def table_of(config: pytest.Config) -> SecurityTable:
    """Return the session's table."""
    name = "fedmepd-security-table"
    table = config.pluginmanager.get_plugin(name)
    if table is None:
        table = SecurityTable()
        config.pluginmanager.register(table, name)
    return table
