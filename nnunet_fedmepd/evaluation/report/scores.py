"""Tables of scores: one row a site, one column a region, mean and spread over the site's cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nnunet_fedmepd.evaluation.report.blocks import Table
from nnunet_fedmepd.evaluation.report.record import RunRecord
from nnunet_fedmepd.evaluation.tables import METRICS, CaseScore

REGION_NAMES = {"whole_tumor": "whole tumour", "tumor_core": "tumour core", "enhancing_tumor": "enhancing tumour"}
_DECIMALS = {"hd95_mm": 1}


def score_tables(record: RunRecord) -> list[Table]:
    """Return a table of every metric."""
    return [_score_table(record, metric) for metric in METRICS]


def regions_of(scores: Sequence[CaseScore]) -> list[str]:
    """Return the scored regions, in the order of the table."""
    return list(dict.fromkeys(score.region for score in scores))


def values_of(scores: Sequence[CaseScore], metric: str, site: str, region: str) -> np.ndarray:
    """Return a metric of a site's cases."""
    return np.array([getattr(score, metric) for score in scores if (score.site, score.region) == (site, region)])


def means_of_cases(scores: Sequence[CaseScore], metric: str, site: str) -> dict[str, float]:
    """Return case -> mean of a metric over the regions."""
    cases: dict[str, list[float]] = {}
    for score in scores:
        if score.site == site:
            cases.setdefault(score.case, []).append(getattr(score, metric))
    return {case: float(np.mean(values)) for case, values in cases.items()}


def _score_table(record: RunRecord, metric: str) -> Table:
    regions, decimals = regions_of(record.scores), _DECIMALS.get(metric, 3)
    rows, site_means = [], []
    for site in _scored_sites(record):
        cases = means_of_cases(record.scores, metric, site)
        columns = [values_of(record.scores, metric, site, region) for region in regions]
        columns.append(np.array(list(cases.values())))
        rows.append([*_who(record, site), str(len(cases)), *(spread(values, decimals) for values in columns)])
        if not record.is_lead(site):
            site_means.append([values.mean() for values in columns])
    strong = []
    if len(site_means) > 1:
        strong = [len(rows)]
        means = [f"{mean:.{decimals}f}" for mean in np.mean(site_means, axis=0)]
        rows.append([_mean_of_sites(record), "", "", *means])
    header = ["site", "modalities", "cases", *(REGION_NAMES.get(region, region) for region in regions), "mean"]
    return Table(header, rows, f"{METRICS[metric]}: mean ± standard deviation over cases", 2, strong)


def spread(values: np.ndarray, decimals: int) -> str:
    """Return mean ± sample standard deviation; the mean alone of a single value."""
    deviation = f" ± {values.std(ddof=1):.{decimals}f}" if len(values) > 1 else ""
    return f"{values.mean():.{decimals}f}{deviation}"


def _scored_sites(record: RunRecord) -> Iterator[str]:
    scored = {score.site for score in record.scores}
    yield from (site for site in record.sites if site in scored)


def _who(record: RunRecord, site: str) -> tuple[str, str]:
    owned = record.federation.site_named(site).modalities or record.federation.modalities
    return f"{site} (lead)" if record.is_lead(site) else site, "+".join(owned)


def _mean_of_sites(record: RunRecord) -> str:
    return "mean, lead left out" if any(map(record.is_lead, record.sites)) else "mean"
