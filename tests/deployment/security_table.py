"""The table of attacks that the security tests print when they have run."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pytest
from rich.console import Console
from rich.table import Table


class SecurityTable:
    """Prints what the tests added to it; a plugin of pytest."""

    def __init__(self) -> None:
        self._table = Table(title="Security, on real processes on the loopback address", show_lines=True)
        for column in ("attack", "each of these alone stops it", "without them"):
            self._table.add_column(column)

    def add(self, attack: str, stopped_by: Mapping[str, object], without: str) -> None:
        """Add a row.

        Args:
            attack: what was tried.
            stopped_by: measure -> how the attack ended with it.
            without: how it ended without.
        """
        self._table.add_row(attack, "\n".join(f"{m}: {end}" for m, end in stopped_by.items()), without)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table above pytest's own summary."""
        text = io.StringIO()
        Console(file=text, width=130).print(self._table)
        terminalreporter.write(text.getvalue())


def table_of(config: pytest.Config) -> SecurityTable:
    """Return the session's table."""
    name = "fedmepd-security-table"
    table = config.pluginmanager.get_plugin(name)
    if table is None:
        table = SecurityTable()
        config.pluginmanager.register(table, name)
    return table
