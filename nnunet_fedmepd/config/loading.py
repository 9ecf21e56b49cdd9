"""Reads a federation file, whole, with every mistake at once; finds the recipes that come with the package."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.mistakes import all_mistakes, listed
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
        data = tomllib.loads(path.read_text("utf-8-sig"))  # some editors begin a file with a byte order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no valid TOML: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    return parse_federation(data, str(path))


def parse_federation(data: Mapping[str, Any], source: str) -> Federation:
    """Return a federation from parsed TOML; `source` is named in errors.

    Raises:
        ConfigurationError: with every mistake, a line each.
    """
    try:
        return Federation.model_validate(dict(data))
    except ValidationError as error:
        raise listed(source, all_mistakes(error, data, Federation)) from None


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
