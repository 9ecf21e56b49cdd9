"""A table that tests fill and pytest prints when they have run."""

from __future__ import annotations

import io
from typing import TypeVar

import pytest
from rich.console import Console
from rich.table import Table

_Own = TypeVar("_Own", bound="PrintedTable")


class PrintedTable:
    """A plugin of pytest, one a session; what it prints is up to the table."""

    def table(self) -> Table:
        """Return what is printed."""
        raise NotImplementedError

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table above pytest's own summary."""
        text = io.StringIO()
        Console(file=text, width=130).print(self.table())
        terminalreporter.write(text.getvalue())

    @classmethod
    def of(cls: type[_Own], config: pytest.Config) -> _Own:
        """Return the session's table."""
        table = config.pluginmanager.get_plugin(cls.__name__)
        if table is None:
            table = cls()
            config.pluginmanager.register(table, cls.__name__)
        return table
