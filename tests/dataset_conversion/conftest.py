from __future__ import annotations

from pathlib import Path

import pytest

from tests.dataset_conversion.small_release import SmallRelease


@pytest.fixture
def release(tmp_path: Path) -> SmallRelease:
    """An empty BraTS 2020 release."""
    return SmallRelease(tmp_path / "source")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder for datasets, which does not exist yet."""
    return tmp_path / "nnUNet_raw"
