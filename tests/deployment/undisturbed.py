"""What a federation comes to where nothing disturbs it."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import Tensor

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.runtime.planning import plan_together
from tests.conftest import NnunetPaths
from tests.runtime.small_federation import CONSOLE, run


def undisturbed(federation: Federation, datasets: NnunetPaths, folder: Path) -> dict[str, dict[str, Tensor]]:
    """Return the weights of the embedded runtime, and forget its models."""
    weights = run(federation, folder)
    _empty(datasets.results)
    return weights


def planned_and_undisturbed(
    federation: Federation, datasets: NnunetPaths, folder: Path
) -> dict[str, dict[str, Tensor]]:
    """Return the weights of the embedded runtime, planning together included, and forget plans and models."""
    _empty(datasets.preprocessed)
    plan_together(federation, CONSOLE)
    weights = undisturbed(federation, datasets, folder)
    _empty(datasets.preprocessed)
    return weights


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
