"""Passes on what other processes write into their logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


class Follower:
    """Reports the lines that a log gets from now on.

    Args:
        file: that need not be there yet.
        report: told each whole line.
    """

    def __init__(self, file: Path, report: Callable[[str], None]) -> None:
        self._file, self._report = file, report
        self._position = file.stat().st_size if file.is_file() else 0
        self._rest = ""

    def look(self) -> None:
        """Report what is new."""
        if not self._file.is_file() or (size := self._file.stat().st_size) == self._position:
            return
        if size < self._position:  # it was begun anew
            self._position, self._rest = 0, ""
        with self._file.open(encoding="utf-8", errors="replace") as log:
            log.seek(self._position)
            text = self._rest + log.read()
            self._position = log.tell()
        *lines, self._rest = text.split("\n")
        for line in lines:
            self._report(line)
