"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a temporary name in the same folder; what is written to it becomes `file` if nothing goes wrong."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def write_if_changed(file: Path, content: bytes) -> bool:
    """Write a file unless it holds this content already, and return whether it was written."""
    if file.is_file() and file.read_bytes() == content:
        return False
    with replacing(file) as partial:
        partial.write_bytes(content)
    return True
