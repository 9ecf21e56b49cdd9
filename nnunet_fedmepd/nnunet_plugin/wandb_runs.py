"""Weights & Biases, where the user switched on nnU-Net's own logger for it (nnUNet_wandb_enabled=1)."""

from __future__ import annotations

import os

from nnunetv2.training.logging import nnunet_logger


def separate_wandb_runs() -> None:
    """Give every trainer of this process a run of its own; by default all of them would log into the first one's."""
    wandb = nnunet_logger.wandb
    if wandb is not None and os.environ.get("nnUNet_wandb_enabled", "0") in ("1", "True", "true"):
        wandb.setup(settings=wandb.Settings(reinit="create_new"))


def end_wandb_run(logger: nnunet_logger.MetaLogger) -> None:
    """End the run of a trainer that is done, where there is one; nnU-Net leaves that to the end of the process."""
    for one in logger.loggers:
        if isinstance(one, nnunet_logger.WandbLogger):
            one.run.finish()
