"""The same work on many cases, in processes, with progress."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from nnunet_fedmepd.errors import ConfigurationError, FedMEPDError

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, description: str
) -> list[Result]:
    """Return `function(item)` of every item, in their order; progress goes to the standard error stream.

    Args:
        function: importable by name, as its items and results are picklable, where workers > 1.
        items: what to work on.
        workers: number of processes; 1 works in this one.
        description: what the progress bar says.

    Raises:
        ConfigurationError: fewer than one worker.
        FedMEPDError: a worker process died.
    """
    if workers < 1:
        raise ConfigurationError(f"Cannot work with {workers} workers: expected at least 1.")
    results = map(function, items) if workers == 1 else _in_processes(function, items, min(workers, len(items)))
    return list(track(results, description, total=len(items), console=Console(stderr=True)))


def _in_processes(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    # Spawned, since a forked child of a process with threads (nnU-Net's, PyTorch's) can hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(function, items)
        except BrokenProcessPool as error:
            raise FedMEPDError(
                "A worker process died, most often because memory ran out, or because a script without "
                '`if __name__ == "__main__":` started it. Try again with fewer workers.'
            ) from error
