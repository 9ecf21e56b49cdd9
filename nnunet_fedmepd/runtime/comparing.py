"""Runs several methods, each with several seeds, on the same sites; evaluates every one as it ends.

OUT/METHOD/seed_SEED/run/               as of `fedmepd run`, with the evaluation of `fedmepd evaluate` in it
OUT/METHOD/seed_SEED/nnUNet_results/    its models
OUT/pooled_data/                        preprocessed datasets of several sites together
OUT/comparison.csv                      every score so far
OUT/comparison_large.csv                the same without small components
OUT/curves.csv                          pseudo Dice on validation patches, round by round
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import parse_federation
from nnunet_fedmepd.config.methods import Method
from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.evaluation.comparison import TrialScore, write_comparison
from nnunet_fedmepd.evaluation.convergence import CurvePoint, write_curves
from nnunet_fedmepd.evaluation.tables import CaseScore, EvaluationFolder
from nnunet_fedmepd.nnunet_plugin.environment import environment
from nnunet_fedmepd.nnunet_plugin.held_out import HeldOut, validation_cases
from nnunet_fedmepd.nnunet_plugin.prediction import TrainedModel
from nnunet_fedmepd.runtime.dropping import evaluate_without_small
from nnunet_fedmepd.runtime.evaluating import Predicting, evaluate_sites
from nnunet_fedmepd.runtime.finished_run import SiteModel, find_held_out, open_finished_run
from nnunet_fedmepd.runtime.pooling import PooledFederation, pool_sites
from nnunet_fedmepd.runtime.preparation import prepare
from nnunet_fedmepd.runtime.run_folder import RunFolder
from nnunet_fedmepd.runtime.running import is_finished, run_federation
from nnunet_fedmepd.runtime.score_table import BusyError


@dataclass(frozen=True)
class Trial:
    """One method with one seed.

    Attributes:
        method: what is run.
        seed: of the training; data, splits and plans do not depend on it.
        folder: where it lies.
    """

    method: Method
    seed: int
    folder: Path

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "run"

    @property
    def federation(self) -> Federation:
        """What is run; nnU-Net's validation after training is left out, for the test cases are scored anyway."""
        file = self.method.federation.model_dump()
        changes = {"seed": self.seed, "training": {**file["training"], "final_validation": False}}
        return parse_federation({**file, **changes}, f"method {self.method.name}")


@dataclass(frozen=True)
class Scoring:
    """How models are scored.

    Attributes:
        predicting: how held-out cases are predicted.
        drop_small: components below a limit, chosen on the validation cases of every method alike, are dropped.
    """

    predicting: Predicting
    drop_small: bool = False


class Comparison:
    """Several methods and seeds in one folder, which remembers what is done.

    Args:
        methods: on the same sites, plans and folds.
        seeds: of the trainings.
        out: the folder.
        scoring: how models are scored.
        pooled_factor: how many times longer than a site pooled data are trained on.
        console: for progress.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        seeds: Sequence[int],
        out: Path,
        scoring: Scoring,
        pooled_factor: int,
        console: Console,
    ) -> None:
        self.out, self._scoring, self._factor, self._console = out, scoring, pooled_factor, console
        # Seed by seed, so that an interrupted comparison has all methods with some seeds, not the other way round.
        self.trials = [Trial(m, seed, out / m.name / f"seed_{seed}") for seed in seeds for m in methods]
        first = methods[0].federation
        self._held_out = find_held_out(first, "test")
        self._validation = _validation_cases(first) if scoring.drop_small else {}
        self.checkpoints = ("final",) if first.run.fold == "all" else ("final", "best")

    @property
    def table(self) -> Path:
        """Every score so far."""
        return self.out / ("comparison_large.csv" if self._scoring.drop_small else "comparison.csv")

    def run(self) -> list[TrialScore]:
        """Run and evaluate what is not done yet, and return all scores.

        Raises:
            ConfigurationError: the sites are not planned, or a fold cannot be made.
            RunError: a folder holds a run with other settings, or is in use.
        """
        scores: list[TrialScore] = []
        for number, trial in enumerate(self.trials, 1):
            self._console.rule(f"{trial.method.name}, seed {trial.seed} ({number} of {len(self.trials)})")
            scores += self._finish(trial)
            write_comparison(self.table, scores)
        return scores

    def collect(self) -> list[TrialScore]:
        """Return the scores of the trials that have ended, without training anything, also while others go on."""
        scores: list[TrialScore] = []
        for trial in self.trials:
            if self._has_ended(trial):
                try:
                    scores += self._finish(trial)
                except BusyError:
                    self._console.print(f"{trial.method.name}, seed {trial.seed}: being evaluated, left out")
        write_comparison(self.table, scores)
        return scores

    def curves(self) -> list[CurvePoint]:
        """Return how good every ended trial's models were after every round, and write it down."""
        points = [point for trial in self.trials if self._has_ended(trial) for point in self._curves_of(trial)]
        write_curves(self.out / "curves.csv", points)
        return points

    def _curves_of(self, trial: Trial) -> list[CurvePoint]:
        """Return the curves of every site, or of the pool that stands for it."""
        pool_of = dict(self._pools(trial).pool_of) if trial.method.pooled else {}
        with nnunet_folders(nnUNet_results=trial.folder / "nnUNet_results"):
            return self._points(trial, pool_of)

    def _points(self, trial: Trial, pool_of: Mapping[str, str]) -> list[CurvePoint]:
        ended, turns = open_finished_run(trial.run), RunFolder(trial.run).journal()
        points = []
        for site in trial.federation.site:
            model = pool_of.get(site.name, site.name)
            # A site that was absent took no steps; a round that was trained again counts once.
            dice = {
                line["round"]: line["pseudo_dice"] for line in turns if line["site"] == model and "pseudo_dice" in line
            }
            steps = ended.steps_per_round(model) if dice else 0
            points += [
                CurvePoint(trial.method.name, trial.seed, site.name, number * steps, dice[round_number])
                for number, round_number in enumerate(sorted(dice), 1)
            ]
        return points

    def _has_ended(self, trial: Trial) -> bool:
        try:
            open_finished_run(trial.run)
        except FedMEPDError:
            return False
        return True

    def _finish(self, trial: Trial) -> list[TrialScore]:
        if not trial.method.pooled:
            with nnunet_folders(nnUNet_results=trial.folder / "nnUNet_results"):
                self._train(trial.federation, trial)
                return self._evaluate(trial, {site.name: site.name for site in trial.federation.site})
        pools = self._pools(trial)
        folders = {"nnUNet_preprocessed": self._pooled_data, "nnUNet_results": trial.folder / "nnUNet_results"}
        with nnunet_folders(**folders):
            self._train(pools.federation, trial)
            return self._evaluate(trial, dict(pools.pool_of))

    @property
    def _pooled_data(self) -> Path:
        return self.out / "pooled_data"

    def _pools(self, trial: Trial) -> PooledFederation:
        return pool_sites(prepare(trial.federation), self._pooled_data, self._factor)

    def _train(self, federation: Federation, trial: Trial) -> None:
        if not is_finished(federation, trial.run):
            run_federation(federation, trial.run, self._console)

    def _evaluate(self, trial: Trial, model_of: dict[str, str]) -> list[TrialScore]:
        """Score every site's cases with the model that the trial has for the site."""
        ended, rows = open_finished_run(trial.run), []
        for checkpoint in self.checkpoints:
            trained = {site: model for site, model in model_of.items() if model in ended.results}
            models = {site: ended.model(model, checkpoint) for site, model in trained.items()}
            steps = {site: model.steps() for site, model in models.items()}
            scores = self._score(models, EvaluationFolder(trial.run, checkpoint))
            rows += [
                TrialScore(trial.method.name, trial.seed, checkpoint, steps[score.site], score) for score in scores
            ]
        return rows

    def _score(self, models: Mapping[str, TrainedModel], folder: EvaluationFolder) -> list[CaseScore]:
        predicting = self._scoring.predicting
        targets = [SiteModel(site, model, self._held_out[site]) for site, model in models.items()]
        if not self._scoring.drop_small:
            return evaluate_sites(targets, folder, predicting, self._console)
        validation = [SiteModel(site, model, self._validation[site]) for site, model in models.items()]
        return evaluate_without_small(targets, validation, folder, predicting, self._console)


def _validation_cases(federation: Federation) -> dict[str, HeldOut]:
    """Return the validation cases of every site, also where nnU-Net has yet to write its folds down."""
    prepared = prepare(federation)
    return {
        site: validation_cases(files.dataset, federation.vocabulary, prepared.folds[site])
        for site, files in prepared.sites.items()
    }


@contextmanager
def nnunet_folders(**folders: Path) -> Iterator[None]:
    """Let nnU-Net use other folders for a while; they are made."""
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    with environment({name: str(folder) for name, folder in folders.items()}):
        yield
