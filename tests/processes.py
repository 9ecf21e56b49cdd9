"""Processes that tests kill."""

from __future__ import annotations

from pathlib import Path


def is_there(process: int) -> bool:
    """Return whether there is such a process (on Linux), other than one that has ended and waits to be asked about."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False
