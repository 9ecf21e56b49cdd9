"""An optimizer's moments as flat tensors, and back: what a run that is resumed to the bit needs, without a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return `index.key` -> tensor of the optimizer's state; `restore_optimizer` is the inverse."""
    moments: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value
        for index, values in moments.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Load moments; the learning rate and the like stay those of the optimizer."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        index, _, key = name.partition(".")
        moments.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def move_optimizer(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Move moments to a device; step counters stay where they are."""
    for values in optimizer.state.values():
        for key, value in values.items():
            if isinstance(value, Tensor) and key != "step":
                values[key] = value.to(device)
