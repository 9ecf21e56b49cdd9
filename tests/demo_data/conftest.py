"""Shared by the demo data's tests: shape checks, and small data sets that are made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before any test module imports them: from here on every annotated shape is checked at every call.
MODULES_WITH_ARRAYS = (
    *("anatomy", "atlas", "composition", "confounders", "fields", "head", "lattice"),
    *("layouts", "oedema", "phantom", "scanner", "signal", "tumour"),
)
install_import_hook([f"nnunet_fedmepd.demo_data.{module}" for module in MODULES_WITH_ARRAYS], "beartype.beartype")

from nnunet_fedmepd.demo_data.generate import generate  # noqa: E402
from nnunet_fedmepd.demo_data.settings import DemoDataSettings  # noqa: E402


@pytest.fixture(scope="session")
def two_sites() -> DemoDataSettings:
    """Two sites of two and one training cases, with one test case each."""
    return DemoDataSettings(shape=(25, 30, 26), spacing_mm=4.0, sites=2, cases_per_site=(3, 2), test_per_site=1)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, two_sites: DemoDataSettings) -> Path:
    """The folder of a data set made with `two_sites`; tests only read it."""
    out = tmp_path_factory.mktemp("demo") / "data"
    generate(out, two_sites, workers=1)
    return out
