"""Checks a table that overrides the fields of a settings dataclass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from nnunet_fedmepd.errors import ConfigurationError

# What a TOML file calls a value of each type.
TYPE_NAMES: dict[type, str] = {bool: "true or false", int: "an integer", float: "a finite number", str: "text"}


def check_settings(settings: type, table: Mapping[str, Any], forbidden: Mapping[str, str] | None = None) -> None:
    """Check that every key is a field of the dataclass `settings`, of its type, with a value that it accepts.

    Args:
        settings: a dataclass whose fields all have defaults, and which refuses values that cannot be used.
        table: as read from the file.
        forbidden: field -> why it may not be given here.

    Raises:
        ConfigurationError: naming every mistake, a line each, which begins with the key.
    """
    known = {field.name: type(field.default) for field in fields(settings)}
    mistakes = [
        f"{key}: {problem}"
        for key, value in table.items()
        if (problem := _problem(settings, key, value, known, forbidden or {}))
    ]
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))


def suggestion(key: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` where a known key is close, else nothing."""
    close = get_close_matches(key, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _problem(
    settings: type, key: str, value: Any, known: Mapping[str, type], forbidden: Mapping[str, str]
) -> str | None:
    if key in forbidden:
        return f"cannot be set here: {forbidden[key]}"
    if key not in known:
        return f"unknown key{suggestion(key, known)}"
    if not _fits(value, known[key]):
        return f"expected {TYPE_NAMES[known[key]]}, found {value!r}"
    try:
        settings(**{key: value})
    except ConfigurationError as error:
        # The sentences after the first say where else such a setting may come from.
        return str(error).split(". ")[0].removesuffix(".")
    return None


def _fits(value: Any, kind: type) -> bool:
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind
