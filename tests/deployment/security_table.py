"""The table of attacks that the security tests print when they have run."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from tests.deployment.printed_table import PrintedTable


class SecurityTable(PrintedTable):
    """Holds how every attack ended, with each measure and without."""

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

    def table(self) -> Table:
        return self._table
