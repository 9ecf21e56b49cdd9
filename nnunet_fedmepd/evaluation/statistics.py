"""How certain a comparison is: seeds are averaged within a case first, and cases, never seeds, are what is counted.

Two trainings of one method on one case are no two observations: they share the case. So every case gives one number,
its mean over the seeds; tests are paired over cases, and intervals resample cases within their site. What they tell is
how the trained models would do on other cases, not how much another training would differ: that, the seeds tell.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

N_RESAMPLES = 9999
N_SIGN_FLIPS = 99_999
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval; the bounds are NaN where no site has two cases."""

    mean: float
    low: float
    high: float


def mean_over_seeds(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return case -> mean over its seeds."""
    return {case: float(np.mean(own)) for case, own in values.items()}


def bootstrap_mean(sites: Sequence[Sequence[float]], seed: int = 0, confidence: float = 0.95) -> Interval:
    """Return the mean of the sites' means, and its percentile bootstrap interval over cases, drawn within each site.

    Args:
        sites: per site one number a case.
        seed: of the draws.
        confidence: of the interval.
    """
    samples = [np.asarray(site, float) for site in sites]
    mean = float(np.mean([sample.mean() for sample in samples]))
    if all(len(sample) < 2 for sample in samples):
        return Interval(mean, float("nan"), float("nan"))
    # scipy wants at least two observations a sample; one case twice is drawn as itself.
    drawn = [np.repeat(sample, 2) if len(sample) == 1 else sample for sample in samples]
    result = stats.bootstrap(
        drawn,
        lambda *draws, axis: np.mean([draw.mean(axis=axis) for draw in draws], axis=0),
        n_resamples=N_RESAMPLES,
        batch=1000,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))


def signed_rank_p_value(differences: Sequence[float]) -> float:
    """Return the two-sided p value of Wilcoxon's signed-rank test of two methods' differences over the same cases.

    Differences of zero are left out (Wilcoxon); without any other difference it is 1. SciPy chooses between the exact
    distribution, permutations and the normal approximation.
    """
    rounded = _rounded(differences)
    rounded = rounded[rounded != 0]
    return float(stats.wilcoxon(rounded).pvalue) if rounded.size else 1.0


def sign_flip_p_value(sites: Sequence[Sequence[float]], seed: int = 0) -> float:
    """Return the two-sided p value of the mean of the sites' mean differences, over random signs of all differences.

    Unlike a test of all cases together it asks about the very number that is told: a site of a hundred cases counts as
    much as one of five. It is exact up to 16 cases, else from 99,999 draws (Fisher's randomisation test).

    Args:
        sites: per site the differences of its cases.
        seed: of the draws.
    """
    weighted = np.concatenate([_rounded(site) / len(site) for site in sites])
    if not weighted.any():
        return 1.0
    result = stats.permutation_test(
        (weighted,),
        lambda draws, axis: draws.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=N_SIGN_FLIPS,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Mapping[_Key, float]) -> dict[_Key, float]:
    """Return p values adjusted for their number (Holm 1979): the i-th smallest of n times n - i + 1, never falling."""
    adjusted: dict[_Key, float] = {}
    largest = 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, p_values[key] * (len(p_values) - rank)))
        adjusted[key] = largest
    return {key: adjusted[key] for key in p_values}


def _rounded(differences: Sequence[float]) -> np.ndarray:
    """Return differences, where rounding errors of means over seeds neither make one nor tell two alike ones apart."""
    return np.round(np.asarray(differences, float), 12)
