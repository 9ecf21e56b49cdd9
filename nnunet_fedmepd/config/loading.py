"""Reads a federation file, whole, with every mistake at once; finds the recipes that come with the package."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from nnunet_fedmepd.config.cross_checks import cross_mistakes
from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.settings_tables import suggestion
from nnunet_fedmepd.errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load_federation(file: str | Path) -> Federation:
    """Return a federation file, or the recipe of that name.

    Raises:
        ConfigurationError: no such file, not TOML, or mistakes in it; all of them are listed.
    """
    path = _find(file)
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no valid TOML: {error}") from None
    return parse_federation(data, str(path))


def parse_federation(data: Mapping[str, Any], source: str) -> Federation:
    """Return a federation from parsed TOML; `source` is named in errors.

    Raises:
        ConfigurationError: with every mistake, a line each.
    """
    try:
        return Federation.model_validate(dict(data))
    except ValidationError as error:
        mistakes = list(dict.fromkeys([*_field_mistakes(error, data), *cross_mistakes(data)]))
    lines = "\n".join(f"  {mistake}" for mistake in mistakes)
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    raise ConfigurationError(f"{source} has {count}:\n{lines}")


def recipe(name: str) -> Path:
    """Return the file of a recipe that comes with the package.

    Raises:
        ConfigurationError: there is none of this name.
    """
    for folder in _recipe_folders():
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    raise ConfigurationError(f"There is no recipe {name!r}; expected one of {', '.join(recipes()) or 'none'}.")


def recipes() -> list[str]:
    """Return the names of the recipes."""
    return sorted({file.stem for folder in _recipe_folders() for file in folder.glob("*.toml")})


def _recipe_folders() -> list[Path]:
    """Return where recipes are: in the installed package, or beside it in a checkout."""
    package = Path(str(resources.files("nnunet_fedmepd")))
    return [folder for folder in (package / "recipes", package.parent / "plans") if folder.is_dir()]


def _find(file: str | Path) -> Path:
    path = Path(file)
    if path.is_file():
        return path
    if str(file) in recipes():
        return recipe(str(file))
    raise ConfigurationError(
        f"There is no federation file {str(file)!r}; expected a TOML file, or one of the recipes "
        f"{', '.join(recipes())}."
    )


def _field_mistakes(error: ValidationError, data: Mapping[str, Any]) -> list[str]:
    mistakes = []
    for found in error.errors():
        place, kind = _place(found["loc"]), found["type"]
        if kind == "extra_forbidden":
            mistakes.append(f"{place}: unknown key{suggestion(str(found['loc'][-1]), _known_keys(found['loc']))}")
        elif kind == "missing":
            mistakes.append(f"{place}: missing")
        elif kind == "value_error":
            mistakes += [f"{place}: {line}" if place else line for line in str(found["ctx"]["error"]).splitlines()]
        else:
            mistakes.append(f"{place}: {found['msg'][0].lower()}{found['msg'][1:]}, found {found['input']!r}")
    return mistakes


def _place(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the table that an unknown key is in."""
    model: Any = Federation
    for part in location[:-1]:
        if isinstance(part, str):
            model = _table_model(model.model_fields[part].annotation)
    return list(model.model_fields)


def _table_model(annotation: Any) -> type[BaseModel]:
    """Return the model of a field that is a table, or an array of tables."""
    arguments = getattr(annotation, "__args__", ())
    return arguments[0] if arguments else annotation
