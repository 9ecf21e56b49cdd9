"""The small planned datasets with validation and test cases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.nnunet_plugin.small_dataset import SmallDataset, write_case, write_image
from tests.runtime.small_federation import OWNED

NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
N_TEST_CASES = {"lead": 1, "b": 2}  # a has none


def copy_folders(source: Path, target: Path) -> dict[str, str]:
    """Copy nnU-Net's folders, and return the environment of the copies."""
    for name in NNUNET_FOLDERS:
        shutil.copytree(source / name, target / name)
    return {name: str(target / name) for name in NNUNET_FOLDERS} | {"nnUNet_n_proc_DA": "0"}


def hold_out_cases() -> None:
    """Give every site a validation case, and the sites of `N_TEST_CASES` their test cases."""
    for site in OWNED:
        cases = sorted(file.name.removesuffix(".nii.gz") for file in (dataset(site).raw / "labelsTr").iterdir())
        split = json.dumps([{"train": cases[1:], "val": cases[:1]}])
        (dataset(site).preprocessed / "splits_final.json").write_text(split)
    hold_out_test_cases(N_TEST_CASES)


def hold_out_test_cases(numbers: Mapping[str, int]) -> None:
    """Give sites so many test cases."""
    for site, n_cases in numbers.items():
        _write_test_cases(dataset(site), OWNED[site], n_cases)


def dataset(site: str) -> SmallDataset:
    """Return a site's dataset."""
    return SmallDataset(f"Dataset{500 + list(OWNED).index(site)}_{site}")


def _write_test_cases(site: SmallDataset, channels: Sequence[str], n_cases: int) -> None:
    for subfolder in ("imagesTs", "labelsTs"):
        (site.raw / subfolder).mkdir()
    for case in (f"test{i}" for i in range(n_cases)):
        labels = write_case(site.raw / "imagesTs", case, channels, seed=1)
        write_image(site.raw / "labelsTs" / f"{case}.nii.gz", labels)
