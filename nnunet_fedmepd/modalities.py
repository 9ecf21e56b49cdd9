"""Canonical modalities and their aliases; the BraTS labels and regions.

A federation fixes one canonical list of modalities, in one order. Every dataset names its channels as its owners
like; names are matched to the canonical ones without regard to case, spaces, `-` and `_`, directly or through an
alias. BraTS is only the default vocabulary: any other set of names (CT, PET, ...) works the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nnunet_fedmepd.errors import ModalityError

BRATS_MODALITIES: tuple[str, ...] = ("T1", "T1ce", "T2", "FLAIR")

BRATS_ALIASES: dict[str, str] = {
    "t1n": "T1",
    "t1w": "T1",
    "t1 native": "T1",
    "t1c": "T1ce",
    "t1gd": "T1ce",
    "t1post": "T1ce",
    "t1 contrast": "T1ce",
    "t2w": "T2",
    "t2f": "FLAIR",
    "t2 flair": "FLAIR",
}

# Labels as written into our nnU-Net datasets: consecutive, in the order of BraTS 2023 and later.
BRATS_LABELS: dict[str, int] = {"background": 0, "necrotic_core": 1, "edema": 2, "enhancing_tumor": 3}

# Evaluation regions as sets of the labels above.
BRATS_REGIONS: dict[str, tuple[int, ...]] = {
    "whole_tumor": (1, 2, 3),
    "tumor_core": (1, 3),
    "enhancing_tumor": (3,),
}

# Which label each region paints, largest region first (nnU-Net's `regions_class_order`).
BRATS_REGIONS_CLASS_ORDER: tuple[int, ...] = (2, 1, 3)

_VALID_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


@dataclass(frozen=True)
class ModalityVocabulary:
    """The canonical modalities of a federation, in their fixed order, and other names for them.

    Args:
        canonical: canonical names, letters, digits, `_`, `+`, `-` only; at least one, none doubled.
        aliases: other name -> canonical name.

    Raises:
        ModalityError: a name is malformed or doubled, or an alias is ambiguous or points nowhere.
    """

    canonical: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "canonical", tuple(self.canonical))
        if not self.canonical:
            raise ModalityError("A federation needs at least one canonical modality; found an empty list.")
        for name in self.canonical:
            if not _VALID_NAME.fullmatch(name):
                raise ModalityError(
                    f"Modality name {name!r} cannot be used: expected letters, digits, '_', '+' and '-', "
                    "starting with a letter or digit. Rename it in the canonical list."
                )
        lookup = self._lookup()
        for alias, target in self.aliases.items():
            if target not in self.canonical:
                raise ModalityError(
                    f"Alias {alias!r} points to {target!r}, which is not one of {list(self.canonical)}."
                )
            if lookup[_key(alias)] != target:
                raise ModalityError(f"Alias {alias!r} means both {lookup[_key(alias)]!r} and {target!r}.")

    def _lookup(self) -> dict[str, str]:
        lookup: dict[str, str] = {}
        for name in self.canonical:
            if _key(name) in lookup:
                raise ModalityError(f"Canonical modalities {lookup[_key(name)]!r} and {name!r} are the same name.")
            lookup[_key(name)] = name
        for alias, target in self.aliases.items():
            lookup.setdefault(_key(alias), target)
        return lookup

    def knows(self, name: str) -> bool:
        """Return whether `name` is a canonical modality or an alias of one."""
        return _key(name) in self._lookup()

    def resolve(self, name: str, source: str = "") -> str:
        """Return the canonical name of `name`.

        Raises:
            ModalityError: nobody knows the name; the message names `source` (a file or a site).
        """
        canonical = self._lookup().get(_key(name))
        if canonical is None:
            raise ModalityError(
                f"Unknown modality {name!r}{f' in {source}' if source else ''}: expected one of "
                f"{list(self.canonical)} or an alias of one ({', '.join(sorted(self.aliases)) or 'none declared'}). "
                "Rename the channel or declare an alias."
            )
        return canonical

    def resolve_all(self, names: Iterable[str], source: str = "") -> tuple[str, ...]:
        """Return the canonical names of `names`, in the order given.

        Raises:
            ModalityError: a name is unknown, or two names mean the same modality.
        """
        names = list(names)
        resolved = tuple(self.resolve(name, source) for name in names)
        for i, modality in enumerate(resolved):
            if modality in resolved[:i]:
                first = names[resolved.index(modality)]
                raise ModalityError(
                    f"Channels {first!r} and {names[i]!r}{f' in {source}' if source else ''} both mean {modality!r}; "
                    "expected every modality at most once. Rename or remove one of them."
                )
        return resolved


BRATS_VOCABULARY = ModalityVocabulary(BRATS_MODALITIES, BRATS_ALIASES)
