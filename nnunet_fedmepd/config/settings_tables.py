"""Checks a table that overrides the fields of a settings dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from nnunet_fedmepd.errors import ConfigurationError


def check_settings(settings: type, table: Mapping[str, Any], forbidden: Mapping[str, str] | None = None) -> None:
    """Check that every key is a field of the dataclass `settings`, of its type, with a value that it accepts.

    Args:
        settings: a dataclass whose fields all have defaults, and which refuses values that cannot be used.
        table: as read from the file.
        forbidden: field -> why it may not be given here.

    Raises:
        ConfigurationError: naming every mistake, one a line.
    """
    known = {field.name: field.default for field in fields(settings)}
    forbidden = forbidden or {}
    problems = [_problem(key, value, known, forbidden) for key, value in table.items()]
    mistakes = [problem for problem in problems if problem]
    usable = {key: value for (key, value), problem in zip(table.items(), problems, strict=True) if not problem}
    try:
        settings(**usable)
    except ConfigurationError as error:
        mistakes.append(str(error))
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))


def suggestion(key: str, known: Mapping[str, Any] | list[str]) -> str:
    """Return `; did you mean X?` where a known key is close, else nothing."""
    close = get_close_matches(key, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _problem(key: str, value: Any, known: Mapping[str, Any], forbidden: Mapping[str, str]) -> str | None:
    if key in forbidden:
        return f"{key} cannot be set here: {forbidden[key]}"
    if key not in known:
        return f"unknown key {key!r}{suggestion(key, known)}"
    kind = type(known[key])
    fits = type(value) is kind or (kind is float and type(value) is int)
    return None if fits else f"{key} is {value!r}; expected {kind.__name__}"
