"""Methods compared over the same cases: what is better, by how much, how certainly."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_fedmepd.evaluation.statistics import (
    Interval,
    bootstrap_mean,
    holm,
    mean_over_seeds,
    sign_flip_p_value,
    signed_rank_p_value,
)
from nnunet_fedmepd.evaluation.tables import COLUMNS, CaseScore
from nnunet_fedmepd.federation.storage import write_atomically

ALL_SITES = "mean of sites"
STAGES = {
    "final": "Dice at the end of training",
    "best": "Dice of each method at its own plateau (best on validation cases)",
}
"""Checkpoint -> what is compared."""


@dataclass(frozen=True)
class TrialScore:
    """A score, and the training that it comes from.

    Attributes:
        method: name.
        seed: of the training.
        checkpoint: `final` or `best`.
        steps: training steps of the site's model until this checkpoint.
        score: of one region of one case.
    """

    method: str
    seed: int
    checkpoint: str
    steps: int
    score: CaseScore


@dataclass(frozen=True)
class Result:
    """One method at one site, or in the mean of all sites.

    Attributes:
        checkpoint: `final` or `best`.
        site: name, or `ALL_SITES`: the sites that every method was scored at, each counting the same, leads left out.
        method: name.
        dice: mean over cases of the mean over regions and seeds, with its 95 % interval over cases.
        seed_deviation: standard deviation of the seeds' means; NaN with one seed.
        steps: mean training steps of the models.
        n_cases, n_seeds: how many there are.
        gain: Dice above the baseline's, on the cases and seeds that both have; NaN for the baseline, or without any.
        seed_gains: the same for every seed by itself.
        p_value: of the gain over cases, adjusted (Holm): for all methods and single sites of a checkpoint together
            (Wilcoxon), and for all methods in the mean of sites together (random signs).
    """

    checkpoint: str
    site: str
    method: str
    dice: Interval
    seed_deviation: float
    steps: float
    n_cases: int
    n_seeds: int
    gain: float
    seed_gains: tuple[float, ...]
    p_value: float


@dataclass(frozen=True)
class _Scored:
    """A method's Dice, mean over regions, or what it gains, at some sites: site -> case -> seed -> number."""

    by_seed: dict[str, dict[str, dict[int, float]]]

    def at_sites(self) -> list[list[float]]:
        """Return per site one number a case, its mean over seeds."""
        return [
            list(mean_over_seeds({case: list(own.values()) for case, own in cases.items()}).values())
            for cases in self.by_seed.values()
        ]

    def seed_means(self) -> list[float]:
        """Return every seed's mean of the sites' means."""
        seeds = sorted({seed for cases in self.by_seed.values() for own in cases.values() for seed in own})
        return [
            float(np.mean([np.mean([own[s] for own in cases.values() if s in own]) for cases in self.by_seed.values()]))
            for s in seeds
        ]

    def above(self, reference: _Scored) -> _Scored | None:
        """Return what is gained over a reference, on common cases and seeds; None where a site has none in common."""
        gains = {
            site: {
                case: common
                for case, own in cases.items()
                if (common := _differences(own, reference.by_seed[site].get(case, {})))
            }
            for site, cases in self.by_seed.items()
        }
        return _Scored(gains) if all(gains.values()) else None


def _differences(own: Mapping[int, float], reference: Mapping[int, float]) -> dict[int, float]:
    return {seed: value - reference[seed] for seed, value in own.items() if seed in reference}


def write_comparison(file: Path, rows: Iterable[TrialScore]) -> None:
    """Write every score of every method, seed and checkpoint into one table, atomically.

    Raises:
        StateFileError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, ("method", "seed", "checkpoint", "steps", *COLUMNS), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**asdict(row.score), **{k: v for k, v in vars(row).items() if k != "score"}})
    write_atomically(file, text.getvalue().encode())


def compare(rows: Sequence[TrialScore], baseline: str, leads: Collection[str] = ()) -> list[Result]:
    """Return every method's result at every site, and in the mean of sites, for every checkpoint.

    Args:
        rows: scores of several methods over the same cases.
        baseline: the method that the others are tested against.
        leads: sites that do not count in the mean of sites, as in the publication.
    """
    results = []
    for checkpoint in dict.fromkeys(row.checkpoint for row in rows):
        own = [row for row in rows if row.checkpoint == checkpoint]
        results += _at_checkpoint(own, checkpoint, baseline, leads)
    return results


def _at_checkpoint(rows: Sequence[TrialScore], checkpoint: str, baseline: str, leads: Collection[str]) -> list[Result]:
    methods = list(dict.fromkeys(row.method for row in rows))
    sites = list(dict.fromkeys(row.score.site for row in rows))
    owned = {m: {row.score.site for row in rows if row.method == m} for m in methods}
    shared = [site for site in sites if site not in leads and all(site in owned[m] for m in methods)]
    results = []
    for name, members in [*((site, [site]) for site in sites), *([(ALL_SITES, shared)] if len(shared) > 1 else [])]:
        of_method = {
            m: [row for row in rows if row.method == m and row.score.site in members]
            for m in methods
            if owned[m] >= set(members)
        }
        scored = {m: _scored(own, members) for m, own in of_method.items()}
        reference = scored.get(baseline)
        for m, own in of_method.items():
            gained = scored[m].above(reference) if reference and m != baseline else None
            results.append(_result(checkpoint, name, m, own, scored[m], gained))
    return _adjusted(results)


def _scored(rows: Sequence[TrialScore], sites: Sequence[str]) -> _Scored:
    regions: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        regions.setdefault((row.score.site, row.score.case, row.seed), []).append(row.score.dice)
    by_seed: dict[str, dict[str, dict[int, float]]] = {site: {} for site in sites}
    for (site, case, seed), dice in regions.items():
        by_seed[site].setdefault(case, {})[seed] = float(np.mean(dice))
    return _Scored(by_seed)


def _result(
    checkpoint: str, name: str, method: str, rows: Sequence[TrialScore], own: _Scored, gained: _Scored | None
) -> Result:
    values, of_seeds = own.at_sites(), own.seed_means()
    gains = gained.at_sites() if gained else []
    steps = {(row.score.site, row.seed): row.steps for row in rows}
    return Result(
        checkpoint,
        name,
        method,
        bootstrap_mean(values),
        float(np.std(of_seeds, ddof=1)) if len(of_seeds) > 1 else math.nan,
        float(np.mean(list(steps.values()))),
        sum(len(cases) for cases in values),
        len(of_seeds),
        float(np.mean([np.mean(site) for site in gains])) if gains else math.nan,
        tuple(gained.seed_means()) if gained else (),
        _p_value(gains) if gains else math.nan,
    )


def _p_value(gains: Sequence[Sequence[float]]) -> float:
    return signed_rank_p_value(gains[0]) if len(gains) == 1 else sign_flip_p_value(gains)


def _adjusted(results: Sequence[Result]) -> list[Result]:
    """Return the results with p values adjusted: those of single sites together, and those of the mean together."""
    adjusted: dict[int, float] = {}
    for overall in (False, True):
        tested = {
            i: result.p_value
            for i, result in enumerate(results)
            if (result.site == ALL_SITES) == overall and not math.isnan(result.p_value)
        }
        adjusted |= holm(tested)
    return [replace(result, p_value=adjusted.get(i, math.nan)) for i, result in enumerate(results)]
