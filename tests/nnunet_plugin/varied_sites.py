"""Sites whose tiny datasets differ in spacing, shape, modalities, their order, and number of cases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

LABELS = {"background": 0, "core": 1, "edema": 2}
LEVELS = {"T1": 100.0, "T1ce": 200.0, "T2": 300.0, "FLAIR": 400.0, "CT": 40.0}


@dataclass(frozen=True)
class Site:
    """A site to write; shape (Z, Y, X) of its first case, spacing (Z, Y, X) in mm."""

    name: str
    channels: tuple[str, ...]
    shape: tuple[int, int, int] = (12, 16, 14)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    n_cases: int = 2
    file_ending: str = ".nii.gz"


def write_site(site: Site, number: int, labels: Mapping[str, Any] = LABELS, **description: Any) -> str:
    """Write a site's raw dataset and return its full name."""
    dataset = f"Dataset{number:03d}_{site.name}"
    cases = {f"{site.name}{i}": site.channels for i in range(site.n_cases)}
    _write(dataset, site.channels, site.file_ending, labels, cases, dict.fromkeys(cases, site), **description)
    return dataset


def write_pooled(
    sites: Sequence[Site], canonical: Sequence[str], labels: Mapping[str, Any] = LABELS, **description: Any
) -> str:
    """Write the same cases as one dataset, with blank channels where a site has no such modality."""
    cases = {f"{site.name}{i}": site for site in sites for i in range(site.n_cases)}
    acquired = {case: site.channels for case, site in cases.items()}
    section = {"canonical_modalities": list(canonical)}
    _write("Dataset900_Pooled", canonical, ".nii.gz", labels, acquired, cases, fedmepd=section, **description)
    return "Dataset900_Pooled"


def _write(
    dataset: str,
    channels: Sequence[str],
    ending: str,
    labels: Mapping[str, Any],
    acquired: Mapping[str, Sequence[str]],
    sites: Mapping[str, Site],
    **description: Any,
) -> None:
    folder = Path(nnUNet_raw) / dataset
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case, site in sites.items():
        images, lesion = _voxels(case, site)
        for i, channel in enumerate(channels):
            voxels = images[channel] if channel in acquired[case] else np.zeros_like(lesion)
            _write_image(folder / "imagesTr" / f"{case}_{i:04d}{ending}", voxels.astype(np.float32), site)
        _write_image(folder / "labelsTr" / f"{case}{ending}", lesion, site)
    text = {
        "channel_names": {str(i): channel for i, channel in enumerate(channels)},
        "labels": dict(labels),
        "numTraining": len(sites),
        "file_ending": ending,
        **description,
    }
    (folder / "dataset.json").write_text(json.dumps(text))


def _voxels(case: str, site: Site) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return a case's image of every channel and its label map; the same wherever the case is written."""
    random = np.random.default_rng([*case.encode()])
    shape = np.array(site.shape) + random.integers(0, 3, 3)
    distance = np.linalg.norm(np.indices(shape).T - np.array(shape) / 2, axis=-1).T
    lesion = np.select([distance < 2, distance < 4], [1, 2], 0).astype(np.uint8)
    return {name: LEVELS[name] + 10 * lesion + random.normal(0, 5, shape) for name in sorted(LEVELS)}, lesion


def _write_image(file: Path, voxels: np.ndarray, site: Site) -> None:
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing(site.spacing[::-1])
    SimpleITK.WriteImage(image, str(file))


def preprocessed_json(dataset: str, file: str) -> dict[str, Any]:
    """Return a JSON file of a preprocessed dataset."""
    return json.loads((Path(nnUNet_preprocessed) / dataset / file).read_text())
