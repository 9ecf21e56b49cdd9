"""Predicts held-out cases and scores them; what is scored already is neither predicted nor scored again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from rich.console import Console

from nnunet_fedmepd.errors import ConfigurationError, DatasetError
from nnunet_fedmepd.evaluation.metrics import score_regions
from nnunet_fedmepd.evaluation.regions import ignore_label, scored_regions
from nnunet_fedmepd.evaluation.tables import CaseScore, EvaluationFolder, read_scores, write_scores
from nnunet_fedmepd.federation.storage import write_atomically
from nnunet_fedmepd.nnunet_plugin.held_out import HeldOutCase
from nnunet_fedmepd.nnunet_plugin.prediction import CasePredictor, PreparedCase
from nnunet_fedmepd.runtime.finished_run import SiteModel
from nnunet_fedmepd.runtime.progress import counting_bar
from nnunet_fedmepd.runtime.run_folder import RunError

_DIGITS = 16


class BusyError(RunError):
    """Another process evaluates the same checkpoint of the same run."""


@dataclass(frozen=True)
class Predicting:
    """How cases are predicted.

    Attributes:
        device: such as `cuda:0`.
        mirroring: average over mirrored images.
    """

    device: str
    mirroring: bool = False


class SiteEvaluation:
    """Predicts and scores the held-out cases of one site; the model is loaded when it is first needed.

    Args:
        target: the site, its model and cases.
        predicting: how.
    """

    def __init__(self, target: SiteModel, predicting: Predicting) -> None:
        self.target, self._predicting = target, predicting
        self.regions = scored_regions(target.held_out.description)
        self._ignore = ignore_label(target.held_out.description)

    def made_of(self, case: HeldOutCase) -> str:
        """Return a digest of all that a case's scores depend on."""
        parts = f"{self._model_digest}/{case.digest()}/{self._predicting.mirroring}"
        return hashlib.sha256(parts.encode()).hexdigest()[:_DIGITS]

    def predict(self, case: HeldOutCase, file: Path) -> list[CaseScore]:
        """Predict a case, write the label map, and return its scores."""
        prepared = self.predictor.prepare(case.images)
        labels = self.predictor.segment(prepared)
        self.predictor.write(labels, prepared, file)
        return self._score(case, labels, self.predictor.modalities)

    def predict_subsets(self, case: HeldOutCase, subsets: Iterable[Sequence[str]]) -> list[CaseScore]:
        """Return the scores of a case as the model sees it through each subset of the modalities."""
        prepared: PreparedCase = self.predictor.prepare(case.images)
        return [
            score for shown in subsets for score in self._score(case, self.predictor.segment(prepared, shown), shown)
        ]

    @cached_property
    def predictor(self) -> CasePredictor:
        """The model."""
        return CasePredictor(self.target.model, torch.device(self._predicting.device), self._predicting.mirroring)

    @cached_property
    def _model_digest(self) -> str:
        if not self.target.model.file.is_file():
            raise ConfigurationError(f"{self.target.model.file} does not exist; was it removed?")
        return self.target.model.digest()

    def _score(self, case: HeldOutCase, labels: np.ndarray, shown: Sequence[str]) -> list[CaseScore]:
        reference, spacing_mm = self.predictor.read_labels(case.reference)
        if reference.shape != labels.shape:
            raise DatasetError(
                "A reference segmentation does not have the shape of its images",
                case=case.name,
                file=case.reference,
                expected=labels.shape,
                found=reference.shape,
            )
        scores = score_regions(reference, labels.astype(np.int64), spacing_mm, self.regions, self._ignore)
        made_of, site = self.made_of(case), self.target.site
        return [
            CaseScore(site, case.name, "+".join(shown), region, **asdict(score), made_of=made_of)
            for region, score in scores.items()
        ]


def evaluate_sites(
    targets: Sequence[SiteModel], folder: EvaluationFolder, predicting: Predicting, console: Console
) -> list[CaseScore]:
    """Predict and score every site's cases; predictions and the table go to the folder, case by case.

    Where the best checkpoint is the last one, nothing is predicted twice: what the other has is taken over.

    Raises:
        DatasetError: images and reference of a case do not fit together.
        BusyError: another process evaluates the same checkpoint.
        StateFileError: the table cannot be written.
    """
    with _alone(folder), _progress(console, "cases", targets) as advance:
        table = _Table(folder.cases)
        others = [(other, _Table(other.cases)) for other in folder.other_checkpoints()]
        for target in targets:
            site = SiteEvaluation(target, predicting)
            ending = target.held_out.description["file_ending"]
            for case in target.held_out.cases:
                file, made_of = folder.predictions(target.site) / f"{case.name}{ending}", site.made_of(case)
                sought = (target.site, case.name, site.regions, made_of)
                if not file.is_file() or not table.holds(*sought):
                    table.put(_taken_over(others, sought, file) or site.predict(case, file))
                advance()
        return table.keep((target.site, case.name) for target in targets for case in target.held_out.cases)


def evaluate_subsets(
    targets: Sequence[SiteModel], folder: EvaluationFolder, predicting: Predicting, console: Console
) -> list[CaseScore]:
    """Predict and score the cases of leads, with each of the 2^M - 1 subsets of the modalities shown to the model.

    Raises:
        DatasetError: images and reference of a case do not fit together.
        BusyError: another process evaluates the same checkpoint.
        StateFileError: the table cannot be written.
    """
    with _alone(folder), _progress(console, "cases, every subset", targets) as advance:
        table = _Table(folder.subsets)
        for target in targets:
            site = SiteEvaluation(target, predicting)
            for case in target.held_out.cases:
                if not table.holds(target.site, case.name, site.regions, site.made_of(case)):
                    table.put(site.predict_subsets(case, subsets_of(site.predictor.modalities)))
                advance()
        return table.keep((target.site, case.name) for target in targets for case in target.held_out.cases)


def _taken_over(
    others: Iterable[tuple[EvaluationFolder, _Table]], sought: tuple[str, str, Iterable[str], str], file: Path
) -> list[CaseScore]:
    """Copy the prediction of another checkpoint with the same weights; returns its scores, none if there is none."""
    site, case, _, _ = sought
    for folder, table in others:
        prediction = folder.predictions(site) / file.name
        if prediction.is_file() and table.holds(*sought):
            write_atomically(file, prediction.read_bytes())
            return table.scores(site, case)
    return []


def subsets_of(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Return every non-empty subset, small ones first."""
    sizes = range(1, len(modalities) + 1)
    return [subset for size in sizes for subset in combinations(modalities, size)]


class _Table:
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
def _alone(folder: EvaluationFolder) -> Iterator[None]:
    """Keep other processes out: two would write one table."""
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.path / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BusyError(f"Another process evaluates in {folder.path}. Wait until it is done.") from None
    with lock:
        yield


@contextmanager
def _progress(console: Console, unit: str, targets: Sequence[SiteModel]) -> Iterator[Callable[[], None]]:
    with counting_bar(console) as bar:
        task = bar.add_task(f"evaluating {unit}", total=sum(len(target.held_out.cases) for target in targets))
        yield lambda: bar.advance(task)
