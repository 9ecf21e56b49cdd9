"""A table of scores that grows case by case, for one process at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nnunet_fedmepd.evaluation.tables import CaseScore, EvaluationFolder, read_scores, write_scores
from nnunet_fedmepd.runtime.run_folder import RunError


class BusyError(RunError):
    """Another process evaluates the same checkpoint of the same run."""


class ScoreTable:
    """A table of scores on disk, written anew after every case.

    Args:
        file: of the table.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rows: dict[tuple[str, str], list[CaseScore]] = {}
        for row in read_scores(file):
            self._rows.setdefault((row.site, row.case), []).append(row)

    def holds(self, site: str, case: str, regions: Iterable[str], made_of: str) -> bool:
        """Return whether a case's scores are there, of the same regions, model and files."""
        rows = self._rows.get((site, case), [])
        return {row.region for row in rows} == set(regions) and all(row.made_of == made_of for row in rows)

    def scores(self, site: str, case: str) -> list[CaseScore]:
        """Return the scores of one case."""
        return self._rows[site, case]

    def put(self, scores: list[CaseScore]) -> None:
        """Add the scores of one case, or replace them."""
        self._rows[scores[0].site, scores[0].case] = scores
        self._write()

    def keep(self, cases: Iterable[tuple[str, str]]) -> list[CaseScore]:
        """Drop all other cases; return the rows, in the order of the cases."""
        self._rows = {key: self._rows[key] for key in cases}
        self._write()
        return [row for rows in self._rows.values() for row in rows]

    def _write(self) -> None:
        write_scores(self._file, (row for rows in self._rows.values() for row in rows))


@contextmanager
def alone(folder: EvaluationFolder) -> Iterator[None]:
    """Keep other processes out: two would write one table."""
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.path / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BusyError(f"Another process evaluates in {folder.path}. Wait until it is done.") from None
    with lock:
        yield
