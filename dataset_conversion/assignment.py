"""Which cases and modalities a site has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dataset_conversion.discovery import Case
from nnunet_fedmepd.errors import DatasetError, ModalityError
from nnunet_fedmepd.modalities import BRATS_MODALITIES, BRATS_VOCABULARY

LEAD = "lead"

_SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class SiteAssignment:
    """The cases and modalities of one site.

    Args:
        name: the site; becomes a part of its dataset's name.
        training: names of its training cases.
        test: names of its held-out cases.
        modalities: what its scanner delivers, as canonical names or aliases; stored canonical, in canonical order.
        validation: names of those training cases that choose the model: fold 0 leaves them out. None: nnU-Net's folds.

    Raises:
        DatasetError: the name cannot be part of a folder's name.
        ModalityError: a modality is unknown or doubled, or there is none.
    """

    name: str
    training: tuple[str, ...]
    test: tuple[str, ...] = ()
    modalities: tuple[str, ...] = BRATS_MODALITIES
    validation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _SITE_NAME.fullmatch(self.name):
            raise DatasetError(
                f"Site name {self.name!r} cannot be part of a folder's name",
                expected="letters, digits, '_', '.' and '-', starting with a letter or digit",
                found=repr(self.name),
                remedy="rename the site",
            )
        named = BRATS_VOCABULARY.resolve_all(self.modalities, f"the modalities of site {self.name}")
        if not named:
            raise ModalityError(f"Site {self.name} has no modality; expected at least one of {list(BRATS_MODALITIES)}.")
        object.__setattr__(self, "modalities", tuple(m for m in BRATS_MODALITIES if m in named))

    @property
    def cases(self) -> tuple[str, ...]:
        """All cases of the site, training cases first."""
        return (*self.training, *self.test)


def in_site_order(sites: Iterable[SiteAssignment]) -> list[SiteAssignment]:
    """Return the sites in the order of their dataset ids: the site called `lead`, then by name, c2 before c10."""
    return sorted(sites, key=lambda site: (site.name.casefold() != LEAD, _natural_key(site.name)))


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    """Numbers inside a name compare as numbers, and come before letters."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.casefold()) for part in re.findall(r"\d+|\D+", name)]


def check_assignments(sites: Sequence[SiteAssignment], cases: Mapping[str, Case]) -> None:
    """Check that every case of the source belongs to exactly one site, and every site has a training case.

    Raises:
        DatasetError: a site named twice or without a training case; a case in two sites, in none, or not in the source.
    """
    owner: dict[str, str] = {}
    names = [site.name for site in sites]
    for site in sites:
        _check_site(site, names)
        for case in site.cases:
            _check_case(case, site, owner, cases)
            owner[case] = site.name
    left_over = [case for case in cases if case not in owner]
    if left_over:
        raise DatasetError(
            "A case belongs to no site",
            case=left_over[0],
            file=cases[left_over[0]].folder,
            expected="every case of the source in one site",
            found=f"{len(left_over)} cases in no site: {_shortened(left_over)}",
            remedy="assign them to a site or take them out of the source folder",
        )


def _check_site(site: SiteAssignment, names: Sequence[str]) -> None:
    if names.count(site.name) > 1:
        raise DatasetError(f"Site {site.name} is given twice", expected="every site once", found=", ".join(names))
    if not set(site.training) - set(site.validation):
        others = (("validation", site.validation), ("test", site.test))
        found = [f"{len(cases)} {kind} cases: {_shortened(cases)}" for kind, cases in others if cases]
        raise DatasetError(
            f"Site {site.name} has no training case",
            expected="at least one training case",
            found="; ".join(found) or "no case at all",
            remedy="assign cases to the site or leave the site out",
        )


def _check_case(case: str, site: SiteAssignment, owner: Mapping[str, str], cases: Mapping[str, Case]) -> None:
    if case in owner:
        raise DatasetError(
            "Duplicate case",
            case=case,
            expected="every case in one site, once",
            found=f"in site {owner[case]} and again in site {site.name}",
            remedy="remove one of the two",
        )
    if case not in cases:
        raise DatasetError(
            f"Site {site.name} has a case that is not in the source folder",
            case=case,
            expected=f"one of the {len(cases)} cases there: {_shortened(list(cases))}",
            found=repr(case),
            remedy="correct the name, remove it, or give the folder that holds it",
        )


def _shortened(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
