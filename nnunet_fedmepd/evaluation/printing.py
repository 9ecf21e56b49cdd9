"""Prints scores: a table per site and region, and the missing-modality literature's table of subsets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from nnunet_fedmepd.evaluation.metrics import CONVENTIONS
from nnunet_fedmepd.evaluation.tables import METRICS, CaseScore

SHOWN, HIDDEN = "●", "○"


def site_table(scores: Sequence[CaseScore], title: str, leads: Collection[str] = ()) -> Table:
    """Return mean and standard deviation over cases, per site and region; last those of the sites' means.

    Leads do not count in the mean of sites, as in the publication.
    """
    table = Table(title=title, caption=CONVENTIONS, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("site", "region", *METRICS.values()):
        table.add_column(column, justify="left" if column in ("site", "region") else "right", no_wrap=True)
    sites = {}
    for site, own in _grouped(scores, lambda score: score.site).items():
        sites[site] = _by_region_and_mean(own)
        n_cases = len({score.case for score in own})
        who = [site, own[0].modalities, f"{n_cases} case{'s' * (n_cases > 1)}"]
        table.add_row(*_block(who, sites[site]), end_section=True)
    counted = [own for site, own in sites.items() if site not in leads]
    if len(counted) > 1:
        means = {
            region: {metric: np.array([own[region][metric].mean() for own in counted]) for metric in METRICS}
            for region in counted[0]
        }
        which = ["mean of sites", *(["without leads"] if len(counted) < len(sites) else []), "± over sites"]
        table.add_row(*_block(which, means))
    return table


def subset_table(scores: Sequence[CaseScore], modalities: Sequence[str], title: str) -> Table:
    """Return the mean Dice of every region, a row per subset of the modalities; a dot is a modality that was shown."""
    table = Table(title=title, caption=CONVENTIONS, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for modality in modalities:
        table.add_column(modality, justify="center", no_wrap=True)
    regions = list(_grouped(scores, lambda score: score.region))
    for column in (*regions, "mean"):
        table.add_column(column, justify="right", no_wrap=True)
    means = []
    for subset, rows in _grouped(scores, lambda score: score.modalities).items():
        shown = subset.split("+")
        of_regions = _grouped(rows, lambda score: score.region)
        means.append([float(np.mean([score.dice for score in of_regions[region]])) for region in regions])
        dots = [SHOWN if modality in shown else HIDDEN for modality in modalities]
        table.add_row(*dots, *(f"{mean:.3f}" for mean in (*means[-1], float(np.mean(means[-1])))))
    table.add_section()
    overall = np.mean(means, axis=0)
    table.add_row("mean", *[""] * (len(modalities) - 1), *(f"{mean:.3f}" for mean in (*overall, overall.mean())))
    return table


def _by_region_and_mean(scores: Sequence[CaseScore]) -> dict[str, dict[str, np.ndarray]]:
    """Return region -> metric -> (cases,); the region `mean` holds each case's mean over the regions."""
    by_region = {
        region: {metric: np.array([getattr(row, metric) for row in rows]) for metric in METRICS}
        for region, rows in _grouped(scores, lambda score: score.region).items()
    }
    if len(by_region) > 1:
        by_region["mean"] = {
            metric: np.mean([rows[metric] for rows in by_region.values()], axis=0) for metric in METRICS
        }
    return by_region


def _block(who: Sequence[str], values: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """Return the cells of one site, a line per region in each."""
    columns = ["\n".join(_spread(metric, rows[metric]) for rows in values.values()) for metric in METRICS]
    return ["\n".join(who), "\n".join(values), *columns]


def _spread(metric: str, values: np.ndarray) -> str:
    digits = 1 if metric.endswith("_mm") else 3
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


def _grouped(scores: Iterable[CaseScore], key: Callable[[CaseScore], str]) -> dict[str, list[CaseScore]]:
    groups: dict[str, list[CaseScore]] = {}
    for score in scores:
        groups.setdefault(key(score), []).append(score)
    return groups
