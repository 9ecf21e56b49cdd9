"""What a federation comes to where nothing disturbs it."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import Tensor

from nnunet_fedmepd.config.federation import Federation
from tests.conftest import NnunetPaths
from tests.runtime.small_federation import run


def undisturbed(federation: Federation, datasets: NnunetPaths, folder: Path) -> dict[str, dict[str, Tensor]]:
    """Return the weights of the embedded runtime, and forget its models."""
    weights = run(federation, folder)
    shutil.rmtree(datasets.results)
    datasets.results.mkdir()
    return weights
