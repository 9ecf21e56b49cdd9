"""nnU-Net datasets of a few tiny cases, planned and preprocessed without worker processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_fedmepd.nnunet_plugin.fingerprint import FedMEPDFingerprintExtractor
from nnunet_fedmepd.nnunet_plugin.planner import FedMEPDTinyPlanner
from nnunet_fedmepd.nnunet_plugin.preprocessor import FedMEPDPreprocessor
from nnunet_fedmepd.nnunet_plugin.trainer import FedMEPDTrainer

BRATS = ("T1", "T1ce", "T2", "FLAIR")
PLAIN_LABELS = {"background": 0, "core": 1, "edema": 2, "enhancing": 3}
SHAPE = (14, 20, 18)
_GRID = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"), -1)
HEAD = np.linalg.norm(_GRID, axis=-1) < 1.05  # an ellipsoid that touches every side of the image


@dataclass(frozen=True)
class SmallDataset:
    """A dataset on disk, by its nnU-Net name."""

    name: str

    @property
    def raw(self) -> Path:
        return Path(nnUNet_raw) / self.name

    @property
    def preprocessed(self) -> Path:
        return Path(nnUNet_preprocessed) / self.name

    @property
    def plans(self) -> dict[str, Any]:
        return json.loads((self.preprocessed / "FedMEPDTinyPlans.json").read_text())

    @property
    def description(self) -> dict[str, Any]:
        return json.loads((self.raw / "dataset.json").read_text())

    def trainer(self, configuration: str = "3d_fullres", device: str = "cpu", **plan_changes: Any) -> FedMEPDTrainer:
        """Return a trainer of all cases, as nnUNetv2_train would make it."""
        plans = {**self.plans, "continue_training": False, **plan_changes}
        return FedMEPDTrainer(plans, configuration, "all", self.description, torch.device(device))


def write_case(
    folder: Path, case: str, channels: Sequence[str], blank: Sequence[str] = (), seed: int = 0
) -> np.ndarray:
    """Write one image file per channel and return the label map: a lesion of three nested balls."""
    random = np.random.default_rng([seed, *case.encode()])
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1)
    distance = np.linalg.norm(grid - np.array(SHAPE) / 2 - random.uniform(-2, 2, 3), axis=-1)
    labels = np.select([distance < 2, distance < 3, distance < 5], [3, 1, 2], 0).astype(np.uint8)
    for i, channel in enumerate(channels):
        image = 100 + 20 * labels + random.normal(0, 5, SHAPE)
        write_image(folder / f"{case}_{i:04d}.nii.gz", image * (channel not in blank))
    return labels


def write_image(file: Path, voxels: np.ndarray) -> None:
    """Write an array (Z, Y, X) with a spacing that is not 1."""
    image = SimpleITK.GetImageFromArray(voxels.astype(np.float32))
    image.SetSpacing((1.0, 1.0, 1.2))
    SimpleITK.WriteImage(image, str(file))


def cut_to_head(dataset: SmallDataset, head: np.ndarray = HEAD) -> None:
    """Set the training images to 0 outside `head`."""
    for file in (dataset.raw / "imagesTr").iterdir():
        write_image(file, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(file)) * head)


def make_dataset(
    name: str,
    channels: Sequence[str] = BRATS,
    labels: Mapping[str, Any] = PLAIN_LABELS,
    blank: Mapping[str, Sequence[str]] | None = None,
    n_cases: int = 3,
    **description: Any,
) -> SmallDataset:
    """Write a raw dataset; `blank` names the blank channels of a case."""
    dataset = SmallDataset(name)
    (dataset.raw / "imagesTr").mkdir(parents=True)
    (dataset.raw / "labelsTr").mkdir()
    for case in (f"case{i}" for i in range(n_cases)):
        voxels = write_case(dataset.raw / "imagesTr", case, channels, (blank or {}).get(case, ()))
        if "ignore" in labels:
            voxels[:, :3] = labels["ignore"]
        write_image(dataset.raw / "labelsTr" / f"{case}.nii.gz", voxels)
    written = {
        "channel_names": {str(i): channel for i, channel in enumerate(channels)},
        "labels": dict(labels),
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
        **description,
    }
    (dataset.raw / "dataset.json").write_text(json.dumps(written))
    return dataset


def prepare(dataset: SmallDataset, configurations: Sequence[str] = ("3d_fullres",)) -> SmallDataset:
    """Fingerprint, plan and preprocess a raw dataset in this process."""
    FedMEPDFingerprintExtractor(dataset.name, 1).run()
    FedMEPDTinyPlanner(dataset.name, gpu_memory_target_in_gb=0.02).plan_experiment()
    manager = PlansManager(dataset.plans)
    for configuration in configurations:
        settings = manager.get_configuration(configuration)
        folder = dataset.preprocessed / settings.data_identifier
        folder.mkdir()
        for case, files in get_filenames_of_train_images_and_targets(str(dataset.raw), dataset.description).items():
            FedMEPDPreprocessor(verbose=False).run_case_save(
                str(folder / case), files["images"], files["label"], manager, settings, dataset.description
            )
    return dataset
