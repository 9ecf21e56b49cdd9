"""Shared by all tests: how many run side by side, shape checks switched on, one thread, the same random numbers every
time, nnU-Net's folders.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

# Read when torch, matplotlib and nnU-Net are imported, here and in the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("nnUNet_def_n_proc", "1")

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

# Before any test module imports them: from here on every annotated shape is checked at every call.
install_import_hook(["nnunet_fedmepd.maths", "nnunet_fedmepd.networks"], "beartype.beartype")

torch.set_num_threads(1)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run four files of tests at a time, or as many as there are cores; a deployment's real processes by themselves."""
    alone = "deployment" in config.option.markexpr.replace("not deployment", "")
    return 0 if alone else min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class NnunetPaths:
    """nnU-Net's three folders, empty, with the environment variables pointing to them."""

    raw: Path
    preprocessed: Path
    results: Path


@pytest.fixture
def nnunet_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NnunetPaths:
    """Empty nnU-Net folders for one test."""
    paths = NnunetPaths(*(tmp_path / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")))
    for folder in (paths.raw, paths.preprocessed, paths.results):
        folder.mkdir()
        monkeypatch.setenv(folder.name, str(folder))
    return paths


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Let a test draw the same patches, weights and augmentations whenever it runs, alone or among others."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
