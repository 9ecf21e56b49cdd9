"""The methods of a comparison, as words on the command line: each becomes a federation file of its own.

fedavg                                        a variant
pooled                                        trained on the data of all sites together: the bound
fedmepd:method.anchors=false                  a variant with values of the file changed, several with more colons
one-anchor=fedmepd:method.n_anchors_per_class=1    the same under a name
late=late.toml                                another file for the same sites, which may lead or be absent otherwise
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import load_federation, parse_federation
from nnunet_fedmepd.config.variants import VARIANTS
from nnunet_fedmepd.errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

POOLED = "pooled"
_NAMED = re.compile(r"(?P<name>[^:=]+)=(?P<what>.+)")
_FOLDER = re.compile(r"[^A-Za-z0-9_.+-]+")
# What all methods share, and what they share of every site: the comparison is about the rest.
_SHARED = ("modalities", "aliases", "planning")
_SHARED_OF_A_SITE = {"name", "dataset", "modalities"}
_CHANGEABLE = ("rounds", "epochs_per_round", "method", "training")


@dataclass(frozen=True)
class Method:
    """A method of a comparison.

    Attributes:
        name: unique; a folder's name.
        federation: what is run.
        pooled: run on the data of all sites that own the modalities, instead of site by site.
    """

    name: str
    federation: Federation
    pooled: bool = False


def parse_methods(
    text: str, federation: Federation, adapt: Callable[[Federation], Federation] = lambda other: other
) -> list[Method]:
    """Return the methods of a list such as `local,fedmepd,pooled`.

    Args:
        text: the list.
        federation: that the methods are variants of.
        adapt: changes other files as `federation` was changed after it was read.

    Raises:
        ConfigurationError: a method is unknown, named twice, or does not fit the federation.
    """
    methods = [_parse(word.strip(), federation, adapt) for word in text.split(",") if word.strip()]
    names = [method.name.casefold() for method in methods]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"Methods are named twice: {', '.join(doubled)}. Give each a name: NAME=METHOD.")
    if not methods:
        raise ConfigurationError(f"There is no method to compare; expected some of {_known()}.")
    return methods


def _parse(word: str, federation: Federation, adapt: Callable[[Federation], Federation]) -> Method:
    named = _NAMED.fullmatch(word)
    name, what = (named["name"], named["what"]) if named else (_FOLDER.sub("_", word), word)
    if _FOLDER.search(name):
        raise ConfigurationError(f"Method {word!r}: {name!r} cannot be a folder's name; expected letters and digits.")
    if what.endswith(".toml"):
        return Method(name, _same_sites(_adapted(load_federation(what), what, adapt), federation, what))
    variant, *changes = what.split(":")
    if variant not in (*VARIANTS, POOLED):
        raise ConfigurationError(f"Unknown method {variant!r} in {word!r}; expected one of {_known()}.")
    file = federation.variant_file("local" if variant == POOLED else variant)
    return Method(name, _changed(file, changes, word), variant == POOLED)


def _adapted(other: Federation, file: str, adapt: Callable[[Federation], Federation]) -> Federation:
    try:
        return adapt(other)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def _changed(file: dict[str, Any], changes: Sequence[str], word: str) -> Federation:
    for change in changes:
        key, equals, value = change.partition("=")
        *tables, last = key.split(".")
        place: Any = file
        for table in tables:
            if isinstance(place, dict) and place.get(table) is None:
                place[table] = {}
            place = place[table] if isinstance(place, dict) else None
        changeable = key.split(".")[0] in _CHANGEABLE and isinstance(place, dict)
        if not equals or not changeable or isinstance(place.get(last), dict):
            raise ConfigurationError(
                f"Method {word!r}: {change!r} is no change of the file; expected KEY=VALUE with a KEY such as "
                "method.anchors, training.initial_lr, rounds or epochs_per_round."
            )
        place[last] = _value(value)
    return parse_federation(file, f"method {word!r}")


def _value(text: str) -> Any:
    """Return a value as TOML writes it; what is none is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _same_sites(other: Federation, federation: Federation, file: str) -> Federation:
    different = [key for key in _SHARED if getattr(other, key) != getattr(federation, key)]
    different += ["site"] if _data_of_sites(other) != _data_of_sites(federation) else []
    different += ["run.fold"] if other.run.fold != federation.run.fold else []
    if different:
        raise ConfigurationError(
            f"{file} is not about the same data: it has another {', another '.join(different)}. Methods are compared "
            "on the same sites, plans and folds."
        )
    return other


def _data_of_sites(federation: Federation) -> list[dict[str, Any]]:
    return [site.model_dump(include=_SHARED_OF_A_SITE) for site in federation.site]


def _known() -> str:
    return ", ".join([*VARIANTS, POOLED, "VARIANT:KEY=VALUE", "NAME=FILE.toml"])
