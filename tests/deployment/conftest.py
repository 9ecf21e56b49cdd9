"""The small planned datasets of the runtime's tests, and a coordinator on the loopback address."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.runtime.conftest import datasets, planned_datasets

if TYPE_CHECKING:
    from tests.deployment.loopback import Loopback

__all__ = ["datasets", "loopback", "planned_datasets"]


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Loopback]:
    """A coordinator's engine and proxy, with the nodes of all sites registered."""
    from tests.deployment import made_kits  # these need the extra, without which other tests here run
    from tests.deployment.loopback import Loopback

    with contextlib.closing(Loopback(made_kits.make(tmp_path))) as running:
        running.control().register(running.keys)
        yield running
