"""Small planned datasets, made once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from unittest import mock

import pytest

from tests.runtime.small_federation import make_datasets


@pytest.fixture(scope="session")
def planned_datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nnU-Net's folders with the planned datasets of `OWNED`."""
    folder = tmp_path_factory.mktemp("planned")
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    for name in names:
        (folder / name).mkdir()
    with mock.patch.dict(os.environ, {name: str(folder / name) for name in names}):
        make_datasets()
    return folder


@pytest.fixture
def datasets(planned_datasets, nnunet_paths, monkeypatch):
    """nnU-Net's folders of one test, with a copy of the planned datasets."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    for own in (nnunet_paths.raw, nnunet_paths.preprocessed):
        shutil.copytree(planned_datasets / own.name, own, dirs_exist_ok=True)
    return nnunet_paths
