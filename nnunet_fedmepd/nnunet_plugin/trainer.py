"""nnU-Net's trainer for FedMEPDNet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.errors import ConfigurationError, UnsupportedError
from nnunet_fedmepd.maths.anchors import momentum_for
from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet, present_modalities
from nnunet_fedmepd.nnunet_plugin.anchor_collection import AnchorCollector
from nnunet_fedmepd.nnunet_plugin.compilation import let_every_site_compile
from nnunet_fedmepd.nnunet_plugin.host_memory import keep_freed_memory
from nnunet_fedmepd.nnunet_plugin.losses import (
    FedMEPDLoss,
    FrequencyWeightedBCE,
    FrequencyWeightedCE,
    FrequencyWeightedDiceCE,
    region_scale_weights,
)
from nnunet_fedmepd.nnunet_plugin.modality_plan import check_channels, planned_vocabulary
from nnunet_fedmepd.nnunet_plugin.model_plans import differences_between_models, differences_between_networks
from nnunet_fedmepd.nnunet_plugin.optimizers import FederatedSchedule, build_optimizer
from nnunet_fedmepd.nnunet_plugin.precision import autocast_for, ready_for_loss
from nnunet_fedmepd.nnunet_plugin.transforms import KeepBlankChannels

# In a fold's results folder, where its models are from a federated run: from which.
OWNER = "federated_run.json"
_GLANCE = 61  # every so many voxels are looked at first


class FedMEPDTrainer(nnUNetTrainer):
    """Trains `FedMEPDNet` on one site's dataset, in nnU-Net's way.

    A dataset with every canonical modality is a lead's: while it trains it collects anchors, which are
    kept in the network's buffers. Any other dataset trains what it has, and calibrates by anchors where the network
    was given some (`-pretrained_weights` of a lead, or a federation).

    Epochs, iterations and the like come from `TrainingSettings`: the plans file or environment variables.

    Raises:
        ConfigurationError: the plans were not made by FedMEPDPlanner, or a setting is invalid.
        ModalityError: the dataset's channels are not those of the plans.
        UnsupportedError: a cascade, or more than one GPU.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  # nnU-Net's signature
    ) -> None:
        refuse_unsupported(plans, configuration)
        _respect_thread_limit(device)
        if device.type == "cpu":
            keep_freed_memory()
        vocabulary = planned_vocabulary(plans)
        self.settings = TrainingSettings.from_plans(plans)
        super().__init__(plans, configuration, fold, dataset_json, device)
        arch_kwargs = self.configuration_manager.network_arch_init_kwargs
        self.modalities = tuple(arch_kwargs["modalities"])
        check_channels(plans, self.modalities, dataset_json, f"{self.plans_manager.dataset_name}/dataset.json")
        self.is_lead = set(self.modalities) == set(vocabulary.canonical)
        # Epochs of a federated run that went by without this site: the schedule counts them, the log does not.
        self.missed_epochs = 0
        self.num_epochs = self.settings.num_epochs
        self.num_iterations_per_epoch = self.settings.num_iterations_per_epoch
        self.num_val_iterations_per_epoch = self.settings.num_val_iterations_per_epoch
        self.save_every = self.settings.save_every
        self.initial_lr, self.weight_decay = self.settings.learning_rate, self.settings.weight_decay
        self.random = np.random.default_rng(self.settings.seed)
        overlapping = arch_kwargs["overlapping_regions"]
        self.anchor_collector = AnchorCollector(
            self.label_manager.num_segmentation_heads + overlapping,
            overlapping,
            self.label_manager.ignore_label,
            arch_kwargs["n_anchors_per_class"],
            self.settings.anchor_momentum or momentum_for(self.num_epochs),
            self.settings.seed,
        )

    def initialize(self) -> None:
        let_every_site_compile()
        super().initialize()

    @property
    def bare_network(self) -> FedMEPDNet:
        """The network without torch.compile's wrapper."""
        network: Any = self.network
        return getattr(network, "_orig_mod", network)

    def _get_deep_supervision_scales(self) -> list[list[float]]:
        """Return by how much each scale is smaller than the patch; nnU-Net leaves out the lowest."""
        return (1 / np.cumprod(self.configuration_manager.pool_op_kernel_sizes, axis=0)).tolist()

    def _build_loss(self) -> FedMEPDLoss:
        n_targets = len(self._get_deep_supervision_scales())
        if self.settings.loss == "published":
            if self.label_manager.has_regions:
                raise ConfigurationError(
                    "The published loss needs plain labels; this dataset declares overlapping regions. Set the "
                    "training setting loss to 'annealed', or convert the dataset without --regions."
                )
            loss = FrequencyWeightedDiceCE(self.label_manager.ignore_label)
            return FedMEPDLoss(loss, [1.0] * n_targets, float(len(self.modalities)))
        nnunet_loss = super()._build_loss().loss
        if self.settings.loss != "nnunet":
            nnunet_loss.ce = (
                FrequencyWeightedBCE(nnunet_loss.ce.reduction, self._strength_of_class_weights)
                if self.label_manager.has_regions
                else FrequencyWeightedCE(self.label_manager.ignore_label, self._strength_of_class_weights)
            )
        weights = [self.settings.region_weight * w for w in region_scale_weights(n_targets)]
        return FedMEPDLoss(nnunet_loss, weights, self.settings.auxiliary_weight)

    def _strength_of_class_weights(self) -> float:
        """Return 1, or, annealed, what is left of the training: falling to 0, at the rate of epochs.

        Weighted to the end, tumours come out too large, for missing a voxel costs far more than inventing one.
        """
        if self.settings.loss != "annealed":
            return 1.0
        return 1 - (self.current_epoch + self.missed_epochs) / self.num_epochs

    def take_role(self, is_lead: bool) -> None:
        """Decide, before training starts, whether to collect anchors; by default every full-modality dataset does."""
        self.is_lead = is_lead

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, FederatedSchedule]:
        optimizer = build_optimizer(self.bare_network, self.settings)
        return optimizer, FederatedSchedule(optimizer, self.initial_lr, self.num_epochs, lambda: self.missed_epochs)

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> BasicTransform:
        return KeepBlankChannels(nnUNetTrainer.get_training_transforms(*args, **kwargs))

    def run_training(self) -> None:
        """Train as `nnUNetv2_train` does, by itself: models that a federated run left in the folder are replaced.

        Raises:
            ConfigurationError: models that a federated run left in folders of other folds would become unusable.
        """
        self._keep_federated_folds()
        Path(self.output_folder, OWNER).unlink(missing_ok=True)
        super().run_training()

    def _keep_federated_folds(self) -> None:
        own, shared = Path(self.output_folder), Path(self.output_folder_base, "plans.json")
        others = [file.parent for file in sorted(shared.parent.glob(f"fold_*/{OWNER}")) if file.parent != own]
        if not others or not shared.is_file():
            return
        found = json.loads(shared.read_text())
        if differences := differences_between_models(found, self.plans_manager.plans, self.configuration_name):
            raise ConfigurationError(
                "nnU-Net keeps one plans.json for all folds. This training would replace it, and models that a "
                "federated run trained by other plans could not be used any more:\n"
                + "".join(f"  {folder}\n" for folder in others)
                + "".join(f"  {difference}\n" for difference in differences)
                + "Set nnUNet_results to another folder, or remove those."
            )

    def on_train_start(self) -> None:
        super().on_train_start()
        self.bare_network.use_anchors(not self.is_lead)

    def on_epoch_end(self) -> None:
        with self._drawing_only_when_due():
            super().on_epoch_end()

    @contextmanager
    def _drawing_only_when_due(self) -> Iterator[None]:
        """Skip nnU-Net's progress.png but every `plot_every` epochs and at the end: drawing it takes about a second."""
        logger, draw = self.logger, self.logger.plot_progress_png
        last = self.current_epoch + self.missed_epochs + 1 >= self.num_epochs
        if not last and (self.current_epoch + 1) % self.settings.plot_every:
            logger.plot_progress_png = lambda output_folder: None
        try:
            yield
        finally:
            logger.plot_progress_png = draw

    def train_step(self, batch: dict) -> dict:
        """Train on one batch; returns {'loss': ...} as nnU-Net's trainer does."""
        images, present = self._hide_scans(batch["data"])
        data = images.to(self.device, non_blocking=True)
        target = [scale.to(self.device, non_blocking=True) for scale in batch["target"]]
        self.optimizer.zero_grad(set_to_none=True)
        with autocast_for(self.device, self.settings.cpu_bf16):
            output = ready_for_loss(self.network(data))
            # A shared encoder sees one image, whatever scans it is made of.
            loss = self.loss(output, target, None if self.bare_network.shared_encoder else present)
        self._update_weights(loss)
        if self.is_lead:
            complete = present_modalities(data).all(1)
            self.anchor_collector.collect(batch["keys"], output.fused, target[0], complete)
        return {"loss": loss.detach()}

    def _update_weights(self, loss: Tensor) -> None:
        if self.grad_scaler is None:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.largest_gradient_norm)
            self.optimizer.step()
            return
        self.grad_scaler.scale(loss).backward()
        self.grad_scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.largest_gradient_norm)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _hide_scans(self, data: Tensor) -> tuple[Tensor, Tensor | None]:
        """Blank scans of some samples, as the settings say; at least one scan that was made stays.

        Returns:
            the batch, and which scans (B, M) bool are left of it; None where all are.
        """
        dropout, imitation = self.settings.modality_dropout, self.settings.absence_imitation
        if not dropout and _is_complete(data):
            return data, None
        present = present_modalities(data)
        hidden = draw_modality_dropout(present, dropout, self.random)
        if not present.all():
            hidden |= draw_imitated_absences(present & ~hidden, imitation, self.random)
        if hidden.any():
            data = data.clone()
            data[hidden] = 0
        return data, present & ~hidden

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        losses = torch.stack([output["loss"] for output in train_outputs]).cpu().numpy()
        super().on_train_epoch_end([{"loss": loss} for loss in losses])
        if self.is_lead and (state := self.anchor_collector.finish_epoch()) is not None:
            self.bare_network.set_anchors(state.anchors, state.valid, in_use=False)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Predict and score the validation cases, unless the settings say no."""
        if self.settings.final_validation:
            super().perform_actual_validation(save_probabilities)
        else:
            self.print_to_log_file("No final validation: the setting final_validation is off")

    def save_checkpoint(self, filename: str) -> None:
        """Save nnU-Net's checkpoint, with the anchors' state, atomically: an interrupted save leaves the old file."""
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return
        checkpoint = {
            "network_weights": self.bare_network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": self.__class__.__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "fedmepd": {"anchors": self.anchor_collector.state, "random": self.random.bit_generator.state},
        }
        torch.save(checkpoint, filename + ".partial")
        os.replace(filename + ".partial", filename)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load nnU-Net's checkpoint, and the anchors' state.

        Raises:
            ConfigurationError: it is of another network than the plans', as a federated run's with switches may be.
        """
        checkpoint = torch.load(filename_or_checkpoint, map_location="cpu", weights_only=False)
        trained_by = checkpoint["init_args"]["plans"]
        if differences := differences_between_networks(trained_by, self.plans_manager.plans, self.configuration_name):
            raise ConfigurationError(
                f"{filename_or_checkpoint} is of another network than that of this dataset's plans:\n"
                + "".join(f"  {difference}\n" for difference in differences)
                + "What a federated run trained `fedmepd run` continues, `fedmepd evaluate` scores, and "
                "`nnUNetv2_predict` uses. For anything else train anew."
            )
        super().load_checkpoint(filename_or_checkpoint)
        self.anchor_collector.state = checkpoint["fedmepd"]["anchors"]
        self.random.bit_generator.state = checkpoint["fedmepd"]["random"]


def refuse_unsupported(plans: dict, configuration: str) -> None:
    """Say at once what this trainer does not do.

    Raises:
        UnsupportedError: naming the feature and the way round it.
    """
    if plans["configurations"].get(configuration, {}).get("previous_stage"):
        raise UnsupportedError(
            f"Configuration {configuration!r} is the second stage of a cascade, which FedMEPDTrainer does not support. "
            "Train 3d_fullres or 3d_lowres."
        )
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise UnsupportedError(
            "FedMEPDTrainer trains on one GPU; found a training spread over several. Run nnUNetv2_train without "
            "-num_gpus, and one fold or site per GPU with CUDA_VISIBLE_DEVICES."
        )


def _respect_thread_limit(device: torch.device) -> None:
    """Undo that nnU-Net's command takes every core of a CPU, where OMP_NUM_THREADS says how many to take.

    Two trainings with all cores each wait for each other at every operation: ten times slower than one core each.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if device.type == "cpu" and limit.isdigit() and int(limit) > 0:
        torch.set_num_threads(int(limit))


def _is_complete(data: Tensor) -> bool:
    """Return whether some voxels of every scan of a batch (B, M, *space) tell that it was made, as they mostly do."""
    return bool((data.flatten(2)[..., ::_GLANCE] != 0).any(-1).all())


def draw_modality_dropout(present: Tensor, probability: float, random: np.random.Generator) -> Tensor:
    """Return (B, M) bool: what to drop of the scans `present` (B, M) bool.

    With `probability` a sample keeps a non-empty proper subset of its scans, all subsets equally likely; one that has
    a single scan keeps it.
    """
    dropped = torch.zeros_like(present)
    for sample, scans in enumerate(present):
        struck = random.random() < probability
        owned = scans.nonzero()[:, 0]
        if struck and len(owned) > 1:
            subset = int(random.integers(1, 2 ** len(owned) - 1))
            dropped[sample, owned] = torch.tensor([not subset >> bit & 1 for bit in range(len(owned))])
    return dropped


def draw_imitated_absences(present: Tensor, probability: float, random: np.random.Generator) -> Tensor:
    """Return (B, M) bool: what to hide of the scans `present` (B, M) bool.

    With `probability` every sample of the batch loses the scans that the sample before it lacks, unless none was left.
    """
    if random.random() >= probability:
        return torch.zeros_like(present)
    hidden = present & ~present.roll(1, 0)
    return hidden & (present & ~hidden).any(1, keepdim=True)
