"""Cases to sites: by a table, by institution, as published, or all in one.

Each function gives the sites in the order of their dataset ids (`in_site_order`), every site with all modalities but
where the publication says otherwise; `dataset_conversion.site_modalities` narrows them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dataset_conversion.assignment import SiteAssignment, in_site_order
from dataset_conversion.layouts import Layout
from dataset_conversion.paper_split import PAPER_MODALITIES, paper_site
from dataset_conversion.tables import read_rows
from nnunet_fedmepd.errors import ConfigurationError, DatasetError

ALL_IN_ONE = "all"

_SPLITS = ("train", "val", "test")


def one_site(cases: Iterable[str]) -> list[SiteAssignment]:
    """Return one site named `all` with every case for training."""
    return [SiteAssignment(ALL_IN_ONE, tuple(cases))]


def split_by_institution(layout: Layout, cases: Iterable[str]) -> list[SiteAssignment]:
    """Return one site per institution named in the cases' names (BraTS 2018).

    Raises:
        ConfigurationError: the release's case names tell no institution.
    """
    if "institution" not in layout.case_pattern.groupindex:
        raise ConfigurationError(
            f"Case names of {layout.name} (such as {layout.example}) tell no institution; only those of brats2018 do. "
            "Give a table with columns case,site instead."
        )
    by_site = _grouped((layout.part_of_name("institution", case) or "", case) for case in cases)
    return in_site_order(SiteAssignment(site, tuple(members)) for site, members in by_site.items())


def split_as_published(layout: Layout, cases: Sequence[str]) -> list[SiteAssignment]:
    """Return the eight sites and the lead of Liu et al. 2025, with their modalities.

    A case that the publication does not mention stays unassigned, which `check_assignments` reports, as it does a
    site without a case.

    Raises:
        ConfigurationError: the publication did not use this release.
    """
    by_site = _grouped((paper_site(layout, case) or "", case) for case in cases)
    return in_site_order(
        SiteAssignment(site, tuple(by_site.get(site, ())), modalities=modalities)
        for site, modalities in PAPER_MODALITIES.items()
    )


def split_by_table(table: Path) -> list[SiteAssignment]:
    """Return the sites of a CSV with a header and the columns `case`, `site` and, if wanted, `split`.

    A split is train, val (left out of training in fold 0, to choose the model) or test; an empty one means train. Other
    columns are ignored.

    Raises:
        DatasetError: no such file, a column missing, a row incomplete, a case listed twice, an unknown split.
    """
    seen: dict[str, int] = {}
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line, row in read_rows(table, required=("case", "site")):
        case, site, split = _table_row(table, line, row)
        if case in seen:
            raise DatasetError(
                "Duplicate case",
                case=case,
                file=f"{table}, line {line}",
                expected="every case once",
                found=f"the same case in line {seen[case]}",
                remedy="remove one of the two lines",
            )
        seen[case] = line
        members[site, split].append(case)
    sites = {site for site, _ in members}
    return in_site_order(
        SiteAssignment(
            site,
            (*members.get((site, "train"), ()), *members.get((site, "val"), ())),
            tuple(members.get((site, "test"), ())),
            validation=tuple(members.get((site, "val"), ())),
        )
        for site in sites
    )


def _table_row(table: Path, line: int, row: Mapping[str, str]) -> tuple[str, str, str]:
    case, site, split = row["case"], row["site"], row.get("split", "") or "train"
    for column in ("case", "site"):
        if not row[column]:
            raise DatasetError(
                f"A row without a {column}",
                case=case or None,
                file=f"{table}, line {line}",
                expected="a case and its site in every row",
                found=", ".join(row.values()),
                remedy="complete the row or remove it",
            )
    if split not in _SPLITS:
        raise DatasetError(
            "Unknown split", case=case, file=f"{table}, line {line}", expected=", ".join(_SPLITS), found=split
        )
    return case, site, split


def hold_out(sites: Iterable[SiteAssignment], fraction: float, seed: int, layout: Layout) -> list[SiteAssignment]:
    """Move a share of every site's training cases to its test cases, whole patients together.

    Patients are ranked by a hash of seed, site and patient, so that a site's draw depends on nothing but these: not on
    the other sites, nor on the order of cases, nor on the Python version.

    Args:
        sites: sites without test cases.
        fraction: share of the site's patients to hold out, at least 0 and below 1; rounded to the nearest patient.
        seed: another seed draws others.
        layout: tells the patient of a case.

    Raises:
        ConfigurationError: the fraction is out of range, or a site has test cases already.
    """
    if not 0 <= fraction < 1:
        raise ConfigurationError(f"Test fraction {fraction} is out of range: expected at least 0 and below 1.")
    return [_hold_out(site, fraction, seed, layout) for site in sites]


def _hold_out(site: SiteAssignment, fraction: float, seed: int, layout: Layout) -> SiteAssignment:
    if site.test:
        raise ConfigurationError(
            f"Site {site.name} has {len(site.test)} test cases by the table's column 'split'; a test fraction would "
            "draw others. Give one of the two."
        )
    patients = sorted({layout.patient(case) for case in site.training}, key=lambda p: _draw(seed, site.name, p))
    held_out = set(patients[: int(fraction * len(patients) + 0.5)])
    return replace(
        site,
        training=tuple(case for case in site.training if layout.patient(case) not in held_out),
        test=tuple(case for case in site.training if layout.patient(case) in held_out),
        validation=tuple(case for case in site.validation if layout.patient(case) not in held_out),
    )


def _draw(seed: int, site: str, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}/{site}/{patient}".encode()).digest()


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
