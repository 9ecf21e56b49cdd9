"""Output that is complete or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunet_fedmepd.errors import DatasetError


@contextmanager
def complete_folder(target: Path) -> Iterator[Path]:
    """Give a hidden folder beside `target` to write into; it becomes `target`, in one step, when the block succeeds.

    If the block fails the folder is removed. If the process is killed it stays, as `.<name>.partial`, and the next call
    for the same target removes it.

    Raises:
        DatasetError: `target` exists already.
    """
    check_absent(target)
    partial = target.with_name(f".{target.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def discarded_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that is removed afterwards, and that replaces what a killed process left there."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn a failure to write inside the block into a message that says where and why.

    Raises:
        DatasetError: the operating system refused (no space, no permission).
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(
            "The output cannot be written",
            file=folder,
            found=str(error),
            remedy="check free space and permissions, then run the same command again",
        ) from error


def check_absent(target: Path) -> None:
    """Check that nothing would be overwritten.

    Raises:
        DatasetError: `target` exists already.
    """
    if target.exists():
        raise DatasetError(
            "The output exists already",
            file=target,
            expected="no such file or folder",
            found="a folder" if target.is_dir() else "a file",
            remedy="remove it or choose another output",
        )
