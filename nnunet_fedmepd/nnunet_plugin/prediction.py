"""Predicts cases with a trained model, by nnU-Net's own predictor, in this process."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.nnunet_plugin.registration import register


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint in nnU-Net's results folder.

    Attributes:
        folder: of the fold.
        checkpoint: `final` or `best`.
    """

    folder: Path
    checkpoint: str

    @property
    def file(self) -> Path:
        """The checkpoint's file."""
        return self.folder / f"checkpoint_{self.checkpoint}.pth"

    def plans(self) -> dict[str, Any]:
        """Return the plans that it was trained by."""
        return json.loads(self._plans_file.read_text("utf-8"))

    def digest(self) -> str:
        """Return a SHA-256 of the plans and the weights; a file with the same weights may have other bytes."""
        digest = hashlib.sha256(self._plans_file.read_bytes())
        for name, tensor in sorted(self._content()["network_weights"].items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def steps(self) -> int:
        """Return after how many training steps it was saved."""
        return int(self._content()["current_epoch"]) * self.steps_per_epoch()

    def steps_per_epoch(self) -> int:
        """Return how many training steps an epoch had."""
        return TrainingSettings.from_plans(self.plans(), environment={}).num_iterations_per_epoch

    @property
    def _plans_file(self) -> Path:
        return self.folder.parent / "plans.json"

    def _content(self) -> dict[str, Any]:
        return torch.load(self.file, map_location="cpu", weights_only=False)


@dataclass(frozen=True)
class PreparedCase:
    """A preprocessed case.

    Attributes:
        data: (M, X, Y, Z), channels in the order of the model's modalities; a scan that was not made is all zeros.
        properties: nnU-Net's, needed to return to the space of the images.
    """

    data: torch.Tensor
    properties: dict[str, Any]


class CasePredictor:
    """One model, ready to predict.

    Args:
        model: to load.
        device: to predict on.
        mirroring: average over mirrored images: eight times slower, slightly better.

    Raises:
        ConfigurationError: there is no such checkpoint.
    """

    def __init__(self, model: TrainedModel, device: torch.device, mirroring: bool = False) -> None:
        register()
        if not model.file.is_file():
            raise ConfigurationError(f"{model.file} does not exist: the model has not been trained to its end.")
        with contextlib.redirect_stdout(None):  # it tells how the device changes its defaults
            self._nnunet = nnUNetPredictor(use_mirroring=mirroring, device=device, allow_tqdm=False)
        fold = model.folder.name.removeprefix("fold_")
        self._nnunet.initialize_from_trained_model_folder(str(model.folder.parent), (fold,), model.file.name)
        self._plans, self._configuration = self._nnunet.plans_manager, self._nnunet.configuration_manager
        self._files = self._plans.image_reader_writer_class()

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the model takes, in the order of its channels."""
        return tuple(self._configuration.network_arch_init_kwargs["modalities"])

    def prepare(self, images: Mapping[str, Path]) -> PreparedCase:
        """Read and preprocess a case; `images` are modality -> file: at least those that the model takes."""
        data, properties = self._files.read_images([str(images[modality]) for modality in self.modalities])
        preprocessor = self._configuration.preprocessor_class(verbose=False)
        ready, _, properties = preprocessor.run_case_npy(
            data, None, properties, self._plans, self._configuration, self._nnunet.dataset_json
        )
        return PreparedCase(torch.from_numpy(ready), properties)

    def segment(self, case: PreparedCase, shown: Collection[str] | None = None) -> np.ndarray:
        """Return the predicted label map, in the space of the images.

        Args:
            case: from `prepare`.
            shown: the modalities that the model gets to see; the others are blank. None shows all.
        """
        data = case.data
        if shown is not None:
            kept = [modality in shown for modality in self.modalities]
            data = data * torch.tensor(kept, dtype=data.dtype).view(-1, 1, 1, 1)
        logits = self._nnunet.predict_logits_from_preprocessed_data(data)
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, self._plans, self._configuration, self._nnunet.label_manager, case.properties
        )
