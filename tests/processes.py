"""Processes that tests start elsewhere, and kill."""

from __future__ import annotations

import os
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[1]


def is_there(process: int) -> bool:
    """Return whether there is such a process (on Linux), other than one that has ended and waits to be asked about."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def finding_tests() -> dict[str, str]:
    """Return the variable by which a process in another folder finds `tests`, which no installation holds."""
    return {"PYTHONPATH": os.pathsep.join([str(_PROJECT), os.environ.get("PYTHONPATH", "")])}
