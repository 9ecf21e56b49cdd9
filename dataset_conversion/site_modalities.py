"""Which modalities each site has, as the user says it: in words, in a CSV or in a TOML file."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset_conversion.assignment import SiteAssignment
from dataset_conversion.tables import read_rows
from nnunet_fedmepd.errors import ConfigurationError, DatasetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SEPARATORS = re.compile(r"[\s,;+|]+")


def read_modalities(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return site -> modality names of either `site=T1ce,T2` words or one file.

    The file is a CSV with columns `site` and `modalities` (names separated by `+`, `;`, `|` or spaces, or by commas in
    quotes), or a TOML file with a table `[modalities]` of lists: `c1 = ["T1ce", "T2"]`.

    Raises:
        ConfigurationError: a word is neither an assignment nor a file, a site given twice, or a wrong TOML file.
        DatasetError: a wrong CSV file.
    """
    if len(words) == 1 and "=" not in words[0]:
        return _from_file(Path(words[0]))
    return _unique((word, *_split_word(word)) for word in words)


def with_modalities(sites: Iterable[SiteAssignment], modalities: Mapping[str, Sequence[str]]) -> list[SiteAssignment]:
    """Return the sites with their modalities replaced where `modalities` names the site.

    Raises:
        DatasetError: modalities are given for a site that has no case.
        ModalityError: a modality is unknown, doubled, or a site is left with none.
    """
    sites = list(sites)
    names = [site.name for site in sites]
    if unknown := [name for name in modalities if name not in names]:
        raise DatasetError(
            f"Modalities are given for site {unknown[0]}, which has no case",
            expected=f"one of the sites {', '.join(names)}",
            found=unknown[0],
            remedy="correct the site's name, assign cases to it, or leave it out",
        )
    return [replace(s, modalities=tuple(modalities[s.name])) if s.name in modalities else s for s in sites]


def _split_word(word: str) -> tuple[str, tuple[str, ...]]:
    site, equals, names = word.partition("=")
    if not equals or not site:
        raise ConfigurationError(f"Cannot read {word!r}: expected SITE=MODALITY,MODALITY,... or one CSV or TOML file.")
    return site, _names(names)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in _SEPARATORS.split(text) if name)


def _unique(entries: Iterable[tuple[str, str, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    """Entries are (where, site, names)."""
    found: dict[str, tuple[str, ...]] = {}
    for where, site, names in entries:
        if site in found:
            raise ConfigurationError(
                f"The modalities of site {site} are given twice, again in {where}. Give them once."
            )
        found[site] = names
    return found


def _from_file(file: Path) -> dict[str, tuple[str, ...]]:
    if file.suffix == ".toml":
        return {site: tuple(names) for site, names in _toml_table(file).items()}
    rows = read_rows(file, required=("site", "modalities"))
    return _unique((f"{file}, line {line}", row["site"], _names(row["modalities"])) for line, row in rows)


def _toml_table(file: Path) -> dict[str, list[str]]:
    try:
        table: Any = tomllib.loads(file.read_text(encoding="utf-8")).get("modalities")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"Cannot read {file}: {error}") from error
    lists = isinstance(table, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in table.values()
    )
    if not lists:
        raise ConfigurationError(
            f'{file} has no table of modalities: expected [modalities] with lines like c1 = ["T1ce", "T2"].'
        )
    return dict(table)
