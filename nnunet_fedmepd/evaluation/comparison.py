"""Methods compared over the same cases: what is better, by how much, how certainly."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_fedmepd.evaluation.statistics import Interval, bootstrap_mean, holm, mean_over_seeds, paired_p_value
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
        gain: Dice above the baseline's, on the cases that both have; NaN for the baseline.
        p_value: of the gain, Wilcoxon over cases, adjusted (Holm): for all methods and single sites of a checkpoint
            together, and for all methods in the mean together.
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
    p_value: float


@dataclass(frozen=True)
class _Scored:
    """A method's Dice, mean over regions, at some sites: site -> case -> one number a seed."""

    by_seed: dict[str, dict[str, dict[int, float]]]
    steps: list[int]

    def at(self, sites: Iterable[str]) -> dict[str, dict[str, float]]:
        """Return site -> case -> mean over seeds."""
        return {
            site: mean_over_seeds({case: list(own.values()) for case, own in self.by_seed[site].items()})
            for site in sites
        }

    def seed_means(self, sites: Sequence[str]) -> list[float]:
        """Return every seed's mean of the sites' means."""
        seeds = sorted({seed for site in sites for own in self.by_seed[site].values() for seed in own})
        return [
            float(
                np.mean([np.mean([own[seed] for own in self.by_seed[site].values() if seed in own]) for site in sites])
            )
            for seed in seeds
        ]


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
        scored = {m: _scored(rows, m, members) for m in methods if owned[m] >= set(members)}
        reference = scored.get(baseline)
        results += [
            _result(checkpoint, name, m, own, members, None if m == baseline else reference)
            for m, own in scored.items()
        ]
    return _adjusted(results)


def _scored(rows: Sequence[TrialScore], method: str, sites: Sequence[str]) -> _Scored:
    regions: dict[tuple[str, str, int], list[float]] = {}
    steps: dict[tuple[str, int], int] = {}
    for row in rows:
        if row.method == method and row.score.site in sites:
            regions.setdefault((row.score.site, row.score.case, row.seed), []).append(row.score.dice)
            steps[row.score.site, row.seed] = row.steps
    by_seed: dict[str, dict[str, dict[int, float]]] = {site: {} for site in sites}
    for (site, case, seed), dice in regions.items():
        by_seed[site].setdefault(case, {})[seed] = float(np.mean(dice))
    return _Scored(by_seed, list(steps.values()))


def _result(
    checkpoint: str, name: str, method: str, own: _Scored, sites: Sequence[str], reference: _Scored | None
) -> Result:
    values, seeds = own.at(sites), own.seed_means(sites)
    gain, p_value = _tested(values, reference.at(sites)) if reference else (math.nan, math.nan)
    return Result(
        checkpoint,
        name,
        method,
        bootstrap_mean([list(cases.values()) for cases in values.values()]),
        float(np.std(seeds, ddof=1)) if len(seeds) > 1 else math.nan,
        float(np.mean(own.steps)),
        sum(len(cases) for cases in values.values()),
        len(seeds),
        gain,
        p_value,
    )


def _tested(own: dict[str, dict[str, float]], reference: dict[str, dict[str, float]]) -> tuple[float, float]:
    """Return the mean of the sites' mean gains and its p value, over the cases that both have."""
    pairs = [
        [(value, reference[site][case]) for case, value in cases.items() if case in reference[site]]
        for site, cases in own.items()
    ]
    gain = float(np.mean([np.mean([a - b for a, b in site]) for site in pairs]))
    a, b = zip(*(pair for site in pairs for pair in site), strict=True)
    return gain, paired_p_value(a, b)


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
