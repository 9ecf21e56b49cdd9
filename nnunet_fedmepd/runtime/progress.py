"""Shows a run while it goes on: a bar with the time left, and one line per site and round."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PACKAGE_LOGGER = "nnunet_fedmepd"


def counting_bar(console: Console, unit: str = "") -> Progress:
    """Return a bar that counts, and tells the time taken and left; it is silent without a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def counting(console: Console, description: str, total: int) -> Iterator[Callable[[], None]]:
    """Draw a bar, and yield what advances it by one."""
    with counting_bar(console) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


class RunProgress:
    """Observes a run and draws a bar over all training steps; without a terminal there are only the lines.

    Args:
        console: to draw on.
        n_rounds: of the federation.
        n_turns: turns in a round.
        steps: training steps of a turn.
    """

    def __init__(self, console: Console, n_rounds: int, n_turns: int, steps: int) -> None:
        self._steps, self._n_rounds, self._n_turns, self._turns = steps, n_rounds, n_turns, 0
        self.bar = counting_bar(console, "steps")
        self._task = self.bar.add_task("starting", total=n_rounds * n_turns * steps)

    def round_begins(self, round_number: int) -> None:
        self._turns = (round_number - 1) * self._n_turns
        self.bar.update(
            self._task, description=f"round {round_number}/{self._n_rounds}", completed=self._turns * self._steps
        )

    def turn_advances(self, site: str) -> None:
        self.bar.advance(self._task)

    def turn_ends(self, round_number: int, site: str) -> None:
        self._turns += 1
        self.bar.update(self._task, completed=self._turns * self._steps)

    def models_begin(self) -> None:
        self.bar.update(
            self._task, description="writing models", completed=self._n_rounds * self._n_turns * self._steps
        )


class _ConsoleHandler(logging.Handler):
    """Prints lines above the bar, as they are."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def logging_to(file: Path, console: Console) -> Iterator[None]:
    """Send the package's log to a file and to the console, while a run goes on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(file)
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_console = _ConsoleHandler(console)
    logger = logging.getLogger(PACKAGE_LOGGER)
    level, propagate = logger.level, logger.propagate
    handlers = (to_file, to_console)
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(level)
        logger.propagate = propagate


def turn_line(round_number: int, n_rounds: int, site: str, report: Mapping[str, Any]) -> str:
    """Return the line of a site's turn."""
    line = (
        f"round {round_number}/{n_rounds}  {site}: loss {report['train_loss']:.3f}, pseudo Dice "
        f"{report['pseudo_dice']:.3f}, {report['seconds']:.1f} s"
    )
    if report["bytes_sent"]:
        line += f", {report['bytes_sent'] / 1e6:.2f} MB sent"
    if report["shared_filters"] < report["filters"]:
        line += f", {report['filters'] - report['shared_filters']} of {report['filters']} filters personal"
    return line
