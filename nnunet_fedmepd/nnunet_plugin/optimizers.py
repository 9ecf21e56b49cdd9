"""Optimizers that spare the weights of absent modalities, and a schedule that runs on while a site is absent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn

from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet


def build_optimizer(network: FedMEPDNet, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return the optimizer named in the settings.

    Weights that hold columns of absent modalities are not decayed: they get no gradient that would keep them up, and
    what other sites learned would slowly vanish.
    """
    spared = set(network.partly_owned_parameters())
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, parameter in network.named_parameters():
        groups[name in spared].append(parameter)
    parameters = [
        {"params": groups[False], "weight_decay": settings.weight_decay},
        {"params": groups[True], "weight_decay": 0.0},
    ]
    parameters = [group for group in parameters if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, settings.learning_rate, momentum=0.99, nesterov=True)
    # Adam with coupled decay erases weights that get no gradient; AdamW with the same rate and moments does not.
    return torch.optim.AdamW(parameters, settings.learning_rate)


class FederatedSchedule(PolyLRScheduler):
    """nnU-Net's schedule, which counts the epochs of the federation, not those that a site took part in.

    Args:
        optimizer: whose rate falls.
        initial_lr: at the start.
        n_epochs: of the federation.
        missed: tells how many epochs went by without the site.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, initial_lr: float, n_epochs: int, missed: Callable[[], int]
    ) -> None:
        self._missed = missed
        super().__init__(optimizer, initial_lr, n_epochs)

    def step(self, current_step: int | None = None) -> None:
        """Set the rate of an epoch of the site; torch's first call names none."""
        super().step(current_step if current_step is None else current_step + self._missed())
