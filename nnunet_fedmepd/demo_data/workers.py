"""Runs a function over many items, in this process or in several, with a progress bar."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nnunet_fedmepd.errors import FedMEPDError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_all(function: Callable[[Item], Result], items: Sequence[Item], workers: int, description: str) -> list[Result]:
    """Return `function` of every item, in order.

    With several workers `function` and the items must be picklable; a script that calls this needs Python's usual
    `if __name__ == "__main__":` guard.

    Raises:
        FedMEPDError: a worker process was killed, most often for lack of memory.
    """
    try:
        with _map(function, items, min(workers, len(items))) as results, _progress() as progress:
            return list(progress.track(results, total=len(items), description=description))
    except BrokenProcessPool as error:
        raise FedMEPDError(
            f"{description}: one of {workers} worker processes was killed, most often for lack of memory. Run the "
            "same again with fewer workers; what is finished is kept."
        ) from error


@contextmanager
def _map(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Iterator[Result]]:
    if workers <= 1:
        yield map(function, items)
        return
    # spawn: a fork would copy the threads of the progress bar and of numerical libraries half alive
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_prepare_worker) as pool:
        yield pool.map(function, items)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
