"""Predicts held-out cases and scores them; what is scored already is neither predicted nor scored again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import torch
from rich.console import Console

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.evaluation.tables import CaseScore, EvaluationFolder
from nnunet_fedmepd.federation.storage import write_atomically
from nnunet_fedmepd.nnunet_plugin.held_out import HeldOutCase
from nnunet_fedmepd.nnunet_plugin.prediction import CasePredictor, PreparedCase
from nnunet_fedmepd.runtime.case_scoring import CaseScorer, n_cases, short_digest
from nnunet_fedmepd.runtime.finished_run import SiteModel
from nnunet_fedmepd.runtime.progress import counting
from nnunet_fedmepd.runtime.score_table import ScoreTable, alone


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
        self.target, self.scorer, self._predicting = target, CaseScorer(target), predicting

    def made_of(self, case: HeldOutCase) -> str:
        """Return a digest of all that a case's scores depend on."""
        return short_digest(self._model_digest, case.digest(), str(self._predicting.mirroring))

    def predict(self, case: HeldOutCase, file: Path) -> list[CaseScore]:
        """Predict a case, write the label map, and return its scores."""
        prepared = self.predictor.prepare(case.images)
        labels = self.predictor.segment(prepared)
        self.scorer.files.write(labels, prepared.properties, file)
        return self.scorer.score(case, labels, self.predictor.modalities, self.made_of(case))

    def predict_subsets(self, case: HeldOutCase, subsets: Iterable[Sequence[str]]) -> list[CaseScore]:
        """Return the scores of a case as the model sees it through each subset of the modalities."""
        prepared: PreparedCase = self.predictor.prepare(case.images)
        made_of = self.made_of(case)
        return [
            score
            for shown in subsets
            for score in self.scorer.score(case, self.predictor.segment(prepared, shown), shown, made_of)
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
    with alone(folder), counting(console, "evaluating cases", n_cases(targets)) as advance:
        table = ScoreTable(folder.cases)
        others = [(other, ScoreTable(other.cases)) for other in folder.other_checkpoints()]
        for target in targets:
            site = SiteEvaluation(target, predicting)
            ending = target.held_out.description["file_ending"]
            for case in target.held_out.cases:
                file, made_of = folder.predictions(target.site) / f"{case.name}{ending}", site.made_of(case)
                sought = (target.site, case.name, site.scorer.regions, made_of)
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
    with alone(folder), counting(console, "evaluating cases, every subset", n_cases(targets)) as advance:
        table = ScoreTable(folder.subsets)
        for target in targets:
            site = SiteEvaluation(target, predicting)
            for case in target.held_out.cases:
                if not table.holds(target.site, case.name, site.scorer.regions, site.made_of(case)):
                    table.put(site.predict_subsets(case, subsets_of(site.predictor.modalities)))
                advance()
        return table.keep((target.site, case.name) for target in targets for case in target.held_out.cases)


def _taken_over(
    others: Iterable[tuple[EvaluationFolder, ScoreTable]], sought: tuple[str, str, Iterable[str], str], file: Path
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
