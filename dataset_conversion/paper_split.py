"""The federation published with FedMEPD (Liu et al. 2025): eight sites and a lead, on BraTS 2018 and BraTS 2020.

BraTS 2018 is split by the institution in the case names (with nine patients of institution `2013` moved to c6), BraTS
2020 by case number. The publication does not say which 40 % of a site's cases are its test cases; draw them with
`dataset_conversion.splits.hold_out`.
"""

from __future__ import annotations

from dataset_conversion.assignment import LEAD
from dataset_conversion.layouts import Layout
from nnunet_fedmepd.errors import ConfigurationError

PAPER_MODALITIES: dict[str, tuple[str, ...]] = {
    LEAD: ("T1", "T1ce", "T2", "FLAIR"),
    "c1": ("T1", "T1ce", "FLAIR"),
    "c2": ("T1", "T2", "FLAIR"),
    "c3": ("T1ce", "FLAIR"),
    "c4": ("T1", "T2"),
    "c5": ("T1ce",),
    "c6": ("T2",),
    "c7": ("T1", "T1ce", "T2", "FLAIR"),
    "c8": ("T1", "T1ce", "T2", "FLAIR"),
}

_INSTITUTIONS_2018: dict[str, tuple[str, ...]] = {
    LEAD: ("CBICA",),
    "c1": ("2013",),
    "c2": ("TCIA01",),
    "c3": ("TCIA03", "TCIA04"),
    "c4": ("TCIA06", "TCIA08"),
    "c5": ("TCIA05", "TCIA09", "TCIA12"),
    "c6": ("TCIA13",),
    "c7": ("TCIA02",),
    "c8": ("TCIA10",),
}
_PATIENTS_OF_2013_AT_C6 = frozenset({"2", "7", "12", "13", "14", "17", "23", "25", "26"})

_NUMBERS_2020: dict[str, tuple[tuple[int, int], ...]] = {  # first and last of each run
    LEAD: ((1, 129),),
    "c1": ((130, 135), (145, 157), (260, 270)),
    "c2": ((158, 179), (234, 237)),
    "c3": ((136, 144), (317, 335)),
    "c4": ((238, 259),),
    "c5": ((336, 369),),
    "c6": ((214, 233), (271, 281)),
    "c7": ((180, 213),),
    "c8": ((282, 316),),
}


def paper_site(layout: Layout, case: str) -> str | None:
    """Return the site that holds `case` in the publication, None where it names no site for it.

    Raises:
        ConfigurationError: the publication did not use this release.
    """
    if layout.name == "brats2018":
        return _site_2018(layout.part_of_name("institution", case), layout.part_of_name("number", case))
    if layout.name == "brats2020":
        return _site_2020(int(layout.part_of_name("number", case) or 0))
    raise ConfigurationError(
        f"The published split covers brats2018 and brats2020, not {layout.name}. Give a table with columns case,site."
    )


def _site_2018(institution: str | None, patient: str | None) -> str | None:
    if institution == "2013" and patient in _PATIENTS_OF_2013_AT_C6:
        return "c6"
    return next((site for site, institutions in _INSTITUTIONS_2018.items() if institution in institutions), None)


def _site_2020(number: int) -> str | None:
    return next((s for s, runs in _NUMBERS_2020.items() if any(a <= number <= b for a, b in runs)), None)
