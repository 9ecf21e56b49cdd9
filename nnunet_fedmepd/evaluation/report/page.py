"""The page: title, facts, and the sections one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from importlib import resources
from pathlib import Path

import numpy as np

from nnunet_fedmepd import __version__
from nnunet_fedmepd.evaluation.report.filters_picture import overall_share
from nnunet_fedmepd.evaluation.report.model_sections import (
    agreement_section,
    anchors_section,
    attention_section,
    filters_section,
)
from nnunet_fedmepd.evaluation.report.record import RunRecord
from nnunet_fedmepd.evaluation.report.result_sections import (
    cases_section,
    curves_section,
    scores_section,
    traffic_section,
)
from nnunet_fedmepd.evaluation.report.scores import means_of_cases
from nnunet_fedmepd.evaluation.report.traffic import size
from nnunet_fedmepd.federation.storage import write_atomically

SECTIONS = (
    scores_section,
    cases_section,
    curves_section,
    filters_section,
    agreement_section,
    anchors_section,
    attention_section,
    traffic_section,
)


def write_page(record: RunRecord, written: datetime, file: Path) -> int:
    """Write the page, atomically, and return its size in bytes.

    Raises:
        StateFileError: it cannot be written.
    """
    page = render(record, written).encode()
    write_atomically(file, page)
    return len(page)


def render(record: RunRecord, written: datetime) -> str:
    """Return the page as HTML that refers to nothing outside itself."""
    from jinja2 import Environment, StrictUndefined

    template = resources.files(__package__).joinpath("template.html").read_text("utf-8")
    return (
        Environment(autoescape=True, undefined=StrictUndefined)
        .from_string(template)
        .render(
            title=f"Federated run {record.federation.name}",
            headline=record.headline,
            facts=list(facts(record)),
            sections=[make(record) for make in SECTIONS],
            footer=f"Written {written:%Y-%m-%d %H:%M} by nnunet-fedmepd {__version__} from {record.path}",
        )
    )


def facts(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield name and value of what a reader wants to know first."""
    yield "variant", record.federation.method.variant
    yield "sites", str(len(record.sites))
    yield "rounds", f"{record.last_round} of {record.federation.rounds}"
    cases = [means_of_cases(record.scores, "dice", site) for site in record.sites]
    if means := [np.mean(list(dice.values())) for dice in cases if dice]:
        yield "mean Dice over sites", f"{np.mean(means):.3f}"
    if any(turn.get("personal") for turn in record.turns):
        shares = [_last(overall_share(record, site)) for site in record.sites if not record.is_lead(site)]
        yield "personal filters at the sites", f"{np.nanmean(shares):.1%}"
    yield "sent by all sites", size(sum(turn["bytes_sent"] for turn in record.turns))


def _last(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known[-1]) if known.size else np.nan
