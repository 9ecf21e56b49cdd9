"""Drives a `FedMEPDTrainer` round by round, and takes its state out and puts it in, without pickles.

nnU-Net's own hooks do the work: what lies in its results folder afterwards is what `nnUNetv2_train` leaves there.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from torch import Tensor

from nnunet_fedmepd.maths.anchors import AnchorState
from nnunet_fedmepd.maths.parameters import FilterGroup
from nnunet_fedmepd.networks.fedmepd_net import NetworkParts
from nnunet_fedmepd.nnunet_plugin.optimizer_state import flatten_optimizer, move_optimizer, restore_optimizer
from nnunet_fedmepd.nnunet_plugin.trainer import FedMEPDTrainer
from nnunet_fedmepd.nnunet_plugin.wandb_runs import end_wandb_run, separate_wandb_runs


@dataclass(frozen=True)
class TrainingSummary:
    """What one round of training at a site gave.

    Attributes:
        train_loss: mean over the last epoch's steps.
        pseudo_dice: nnU-Net's, mean over the foreground classes, of the last epoch; NaN without any foreground.
        seconds: wall clock of the training, validation steps included.
    """

    train_loss: float
    pseudo_dice: float
    seconds: float


class SiteTraining:
    """One site's trainer, alive over the rounds; its model is on the device only while it trains.

    Args:
        plans: the site's plans, training settings included.
        configuration: nnU-Net's configuration.
        fold: nnU-Net's fold.
        dataset_json: the site's dataset description.
        device: to train on.
        is_lead: whether it collects anchors.
        seed: of the parameters that are the site's own from the start.
        log_file: where nnU-Net's console output goes.
        resumes: whether `restore` follows; a Weights & Biases run then goes on, where nnU-Net's logger offers it.
    """

    def __init__(
        self,
        plans: Mapping[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: Mapping[str, Any],
        device: torch.device,
        is_lead: bool,
        seed: int,
        log_file: Path,
        resumes: bool = False,
    ) -> None:
        self.log_file = log_file
        separate_wandb_runs()
        seed_everything(seed)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # as nnUNetv2_train does: patches keep their size
        own_plans = {**deepcopy(dict(plans)), "continue_training": resumes}
        with self._quietly():
            self.trainer = FedMEPDTrainer(own_plans, configuration, fold, deepcopy(dict(dataset_json)), device)  # type: ignore[arg-type]
            self.trainer.take_role(is_lead)
            self.trainer.on_train_start()
            self.suspend()
        loader = self.trainer.dataloader_train
        patches = loader.generator if isinstance(loader, NonDetMultiThreadedAugmenter) else loader.data_loader
        self.n_cases = len(patches.indices)

    @property
    def parts(self) -> NetworkParts:
        """Which parameters play which role."""
        return self.trainer.bare_network.parts()

    @property
    def filter_groups(self) -> list[FilterGroup]:
        """The filters of the fusion decoder."""
        return self.trainer.bare_network.decoder_filters()

    def exchanged(self) -> dict[str, Tensor]:
        """Return copies, in main memory, of the encoders and the fusion decoder."""
        parts = self.parts
        names = {*parts.fusion_decoder, *(name for encoder in parts.encoders.values() for name in encoder)}
        return {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in self.trainer.bare_network.named_parameters()
            if name in names
        }

    @torch.no_grad()
    def load(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy parameters into the network, in place, so that the optimizer keeps its moments of them."""
        own = dict(self.trainer.bare_network.named_parameters())
        for name, tensor in parameters.items():
            own[name].copy_(tensor)

    def calibrate_by(self, anchors: Sequence[Tensor], valid: Tensor) -> None:
        """Give the network the federation's anchors; a lead keeps its own."""
        if not self.trainer.is_lead:
            self.trainer.bare_network.set_anchors(anchors, valid, in_use=True)

    def anchors(self) -> AnchorState | None:
        """Return the anchors that a lead collected so far."""
        return self.trainer.anchor_collector.state

    def forget_moments(self) -> None:
        """Start the optimizer afresh."""
        self.trainer.optimizer.state.clear()

    def train(
        self, n_epochs: int, first_epoch: int, seed: int, advance: Callable[[], None] = lambda: None
    ) -> TrainingSummary:
        """Train some epochs; with one thread and no data workers the same seed gives the same weights, to the bit.

        Args:
            n_epochs: epochs of this round.
            first_epoch: how many epochs the federation went through before.
            seed: of everything random in this round.
            advance: called after every training step.
        """
        trainer, started = self.trainer, time.monotonic()
        self._resume()
        seed_everything(seed)
        trainer.random = np.random.default_rng(seed)
        trainer.missed_epochs = first_epoch - trainer.current_epoch
        with self._quietly():
            for _ in range(n_epochs):
                self._train_epoch(advance)
        self.suspend()
        logged = trainer.logger.local_logger.my_fantastic_logging
        return TrainingSummary(
            float(logged["train_losses"][-1]), float(logged["mean_fg_dice"][-1]), time.monotonic() - started
        )

    def _train_epoch(self, advance: Callable[[], None]) -> None:
        trainer = self.trainer
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        outputs = []
        for _ in range(trainer.num_iterations_per_epoch):
            outputs.append(trainer.train_step(next(trainer.dataloader_train)))
            advance()
        trainer.on_train_epoch_end(outputs)
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            steps = range(trainer.num_val_iterations_per_epoch)
            trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val)) for _ in steps])
        trainer.on_epoch_end()

    def finish(self) -> None:
        """End as `nnUNetv2_train` does: final checkpoint, data workers stopped, validation where the settings ask."""
        with self._quietly():
            self.trainer.on_train_end()
            self._resume()
            self.trainer.perform_actual_validation()
            end_wandb_run(self.trainer.logger)
        self.suspend()

    def suspend(self) -> None:
        """Take model and optimizer off the device, and end nnU-Net's data workers, which the next batch starts again.

        A waiting worker looks 500 times a second whether it may go on; a federation in turns has 18 for every site.
        Where they are not forked each would import everything anew in every round, so there they are left waiting.
        """
        if multiprocessing.get_start_method() == "fork":
            for loader in (self.trainer.dataloader_train, self.trainer.dataloader_val):
                if isinstance(loader, NonDetMultiThreadedAugmenter):
                    loader._finish()
        self._move(torch.device("cpu"))
        if self.trainer.device.type == "cuda":
            torch.cuda.empty_cache()

    def _resume(self) -> None:
        self._move(self.trainer.device)

    def _move(self, device: torch.device) -> None:
        self.trainer.bare_network.to(device)
        move_optimizer(self.trainer.optimizer, device)

    def flatten(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything that the next round needs, as tensors and a JSON header; `restore` is the inverse."""
        trainer = self.trainer
        tensors = {f"network/{name}": tensor for name, tensor in trainer.bare_network.state_dict().items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in flatten_optimizer(trainer.optimizer).items()}
        header = {
            "epoch": trainer.current_epoch,
            "best_ema": None if trainer._best_ema is None else float(trainer._best_ema),
            "log": _plain(trainer.logger.get_checkpoint()),
            "grad_scaler": trainer.grad_scaler.state_dict() if trainer.grad_scaler is not None else None,
        }
        return tensors, header

    def restore(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any], anchors: AnchorState | None) -> None:
        """Put back what `flatten` took, and the anchors collected so far."""
        trainer = self.trainer
        network = {n.removeprefix("network/"): t for n, t in tensors.items() if n.startswith("network/")}
        trainer.bare_network.load_state_dict(network)
        moments = {n.removeprefix("optimizer/"): t for n, t in tensors.items() if n.startswith("optimizer/")}
        restore_optimizer(trainer.optimizer, moments)
        trainer.current_epoch, trainer._best_ema = header["epoch"], header["best_ema"]
        trainer.logger.load_checkpoint(deepcopy(header["log"]))
        if trainer.grad_scaler is not None and header["grad_scaler"] is not None:
            trainer.grad_scaler.load_state_dict(header["grad_scaler"])
        trainer.anchor_collector.state = anchors

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        """Send what nnU-Net prints to the site's own log file: the console shows the federation's progress."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            yield


def seed_everything(seed: int) -> None:
    """Seed every generator that training, sampling and augmentation draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _plain(value: Any) -> Any:
    """Return nested lists and dictionaries with Python's own numbers, as JSON keeps them."""
    return json.loads(json.dumps(value, default=float))
