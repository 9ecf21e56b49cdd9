"""Runs that never ran, for tests of the page."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.evaluation.report.record import RunRecord
from nnunet_fedmepd.evaluation.tables import CaseScore, EvaluationFolder
from nnunet_fedmepd.networks.decoder_layers import DecoderLayer

LAYERS = [
    DecoderLayer(1, "merge", ("m",), 8),
    DecoderLayer(0, "fusion", ("f",), 4),
    DecoderLayer(0, "output", ("o",), 4),
]
SITES = ("lead", "a", "b")
REGIONS = ("whole_tumor", "tumor_core", "enhancing_tumor")


def federation(rounds: int = 6, **changes: Any) -> Federation:
    sites = [{"name": name, "dataset": 500 + i, "lead": name == "lead"} for i, name in enumerate(SITES)]
    return Federation.model_validate(
        {"name": "made_up", "modalities": ["T1", "T2"], "rounds": rounds, "site": sites, **changes}
    )


def turn(site: str, number: int, **changes: Any) -> dict[str, Any]:
    """One line of a journal: in every round a site's merge layer loses another filter to it."""
    report = {"train_loss": 1 / number, "pseudo_dice": 0.1 * number, "seconds": 2.0, "bytes_sent": 3_000_000}
    counts = {"filters": 16, "shared_filters": 16}
    if site != "lead":
        counts["shared_filters"] = 16 - number
        report |= {"personal": [number, 0, 0]}
        if number > 1:
            report |= {"agreement": [-0.5 * number / 10, 0.25, None]}
    return {"round": number, "site": site, **report, **counts, **changes}


def record(last_round: int = 6, **changes: Any) -> RunRecord:
    settings: dict[str, Any] = {
        "path": Path("/runs/made up"),
        "headline": "made up: round 6 of 6, finished",
        "finished": True,
        "federation": federation(),
        "sites": SITES,
        "turns": [turn(site, number) for number in range(1, last_round + 1) for site in SITES],
        "refused": {},
        "layers": LAYERS,
        "class_names": ["background", "core", "edema", "enhancing"],
        "label_names": {1: "core", 2: "edema", 3: "enhancing"},
        "anchors": [np.random.default_rng(s).normal(size=(4, 2, 5)) for s in (1, 2)],
        "valid": np.array([[True, True], [True, True], [True, False], [False, False]]),
        "evaluation": EvaluationFolder(Path("/runs/made up")),
    }
    return RunRecord(**{**settings, **changes})


def scores(sites: tuple[str, ...] = SITES, n_cases: int = 4) -> list[CaseScore]:
    draw = np.random.default_rng(3)
    return [
        CaseScore(site, f"{site}{i}", "T1+T2", region, draw.uniform(), draw.uniform(1, 90), draw.uniform(), 1, 1, "x")
        for site in sites
        for i in range(n_cases)
        for region in REGIONS
    ]


class Page(HTMLParser):
    """A page taken apart: its text, the rows of its tables, and whatever it refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.rows, self.references, self.tags = "", [], [], set()
        self.feed(html)
        self.style = html[html.index("<style>") : html.index("</style>")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data"}]
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and data.strip() and self.lasttag in {"td", "th"}:
            self.rows[-1][-1] += data

    def needs_nothing_else(self) -> bool:
        """Return whether a browser shows it without fetching anything."""
        inside = all(reference.startswith(("data:", "#")) for reference in self.references)
        return inside and not self.tags & {"script", "link", "iframe"} and "url(" not in self.style
