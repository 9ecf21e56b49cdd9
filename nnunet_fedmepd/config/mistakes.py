"""Turns what is wrong with a federation file into lines that a reader of the file understands."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from pydantic import BaseModel, ValidationError

from nnunet_fedmepd.config.cross_checks import cross_mistakes
from nnunet_fedmepd.config.settings_tables import TYPE_NAMES, suggestion
from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.maths.personalization import PersonalizationSettings

Location = tuple[int | str, ...]

# pydantic's names of errors -> what should have been there, in the words of TOML.
_EXPECTED = {
    "bool_type": TYPE_NAMES[bool],
    "int_type": TYPE_NAMES[int],
    "float_type": TYPE_NAMES[float],
    "finite_number": TYPE_NAMES[float],
    "string_type": TYPE_NAMES[str],
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
}


def all_mistakes(error: ValidationError, file: Mapping[str, Any], model: type[BaseModel]) -> list[str]:
    """Return every mistake in a federation file, a line each.

    Args:
        error: what pydantic found in it.
        file: as it was parsed.
        model: of the whole file.
    """
    return list(dict.fromkeys([*_field_mistakes(error, file, model), *cross_mistakes(file)]))


def listed(source: str, mistakes: list[str]) -> ConfigurationError:
    """Return the error that lists the mistakes of a source."""
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    counting = " (site[0] is the first site)" if any("site[" in mistake for mistake in mistakes) else ""
    return ConfigurationError("\n  ".join([f"{source} has {count}{counting}:", *mistakes]))


def _field_mistakes(error: ValidationError, file: Mapping[str, Any], model: type[BaseModel]) -> Iterator[str]:
    wrong_values: dict[str, tuple[list[str], Any]] = {}
    for found in error.errors():
        location, kind = found["loc"], found["type"]
        place = _place(_location_in_file(location, file))
        if kind == "extra_forbidden":
            yield f"{place}: unknown key{_better_key(str(location[-1]), _model_at(model, location[:-1]), model)}"
        elif kind == "missing":
            yield f"{_place(location)}: missing"
        elif kind == "value_error":
            yield from (f"{place}.{line}" if place else line for line in str(found["ctx"]["error"]).splitlines())
        else:
            # A value that may be of several types is reported once for each.
            wrong_values.setdefault(place, ([], found["input"]))[0].append(_expected(place, kind, found["msg"]))
    for place, (expected, value) in wrong_values.items():
        yield f"{place}: expected {' or '.join(dict.fromkeys(expected))}, found {reprlib.repr(value)}"


def _expected(place: str, kind: str, message: str) -> str:
    if place == "site":
        return "tables, each below a line [[site]]"
    bound = "a number " if kind.startswith(("greater", "less")) else ""
    return _EXPECTED.get(kind, bound + message.removeprefix("Input should be "))


def _location_in_file(location: Location, value: Any) -> Location:
    """Return the part of pydantic's location that is in the file, without its names of alternative types."""
    for depth, part in enumerate(location):
        is_there = part in value if isinstance(value, Mapping) else isinstance(part, int)
        if not is_there:
            return location[:depth]
        value = value[part]
    return location


def _place(location: Location) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _better_key(key: str, table: type[BaseModel], model: type[BaseModel]) -> str:
    """Return where a key belongs that is unknown in its table, or the one that may have been meant."""
    homes = {
        "at the top of the file, above all tables": model.model_fields,
        "in [[site]]": _model_at(model, ("site",)).model_fields,
        **{f"in [{name}]": _model_at(model, (name,)).model_fields for name in ("planning", "method", "run")},
        "in [training]": [field.name for field in fields(TrainingSettings)],
        "in [method.privacy]": _model_at(model, ("method", "privacy")).model_fields,
        "in [method.personalization]": [field.name for field in fields(PersonalizationSettings)],
    }
    home = next((home for home, keys in homes.items() if key in keys), None)
    return f"; it belongs {home}" if home else suggestion(key, table.model_fields)


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel]:
    """Return the model of a table."""
    for part in location:
        if isinstance(part, str):
            annotation: Any = model.model_fields[part].annotation
            # An array of tables is a tuple of one model.
            model = annotation.__args__[0] if hasattr(annotation, "__args__") else annotation
    return model
