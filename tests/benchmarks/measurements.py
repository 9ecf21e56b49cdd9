"""What a benchmark found: numbers beside their targets, and how they are measured on a machine that others use, too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from rich.table import Table
from torch import Tensor, nn


@dataclass(frozen=True)
class Measured:
    """One number.

    Attributes:
        name: unique over all tables.
        value: as measured.
        unit: such as `x`, `MB`, `ms`.
        target: what it should reach; None where it is only told.
        higher_is_better: how to compare.
    """

    name: str
    value: float
    unit: str
    target: float | None
    higher_is_better: bool

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.higher_is_better else self.value <= self.target

    def worse_than(self, stored: float, tolerance: float) -> bool:
        """Return whether the number is worse than a stored one by more than a share of it."""
        if self.higher_is_better:
            return self.value < stored * (1 - tolerance)
        return self.value > stored * (1 + tolerance)


def as_table(title: str, rows: Sequence[Measured], stored: Mapping[str, float]) -> Table:
    """Return the numbers beside their targets and what was stored."""
    table = Table(title=title, title_justify="left")
    table.add_column("what", no_wrap=True)
    for column in ("measured", "target", "", "stored"):
        table.add_column(column, justify="right")
    for row in rows:
        sign = ">=" if row.higher_is_better else "<="
        target = "" if row.target is None else f"{sign} {row.target:g} {row.unit}"
        verdict = {None: "", True: "yes", False: "NO"}[row.reached]
        old = f"{stored[row.name]:.3g}" if row.name in stored else ""
        table.add_row(row.name, f"{row.value:.3g} {row.unit}", target, verdict, old)
    return table


def interleaved_seconds(actions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median processor time of each action, all run in turn: what disturbs one disturbs its neighbours."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()  # first pages, lazy imports
    for _ in range(repeats):
        for name, action in actions.items():
            started = time.process_time()
            action()
            seconds[name].append(time.process_time() - started)
    return {name: median(own) for name, own in seconds.items()}


def saved_bytes(forward: Callable[[], Tensor], network: nn.Module) -> int:
    """Return how many bytes a forward pass keeps for the backward pass, each storage once, parameters left out."""
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    storages: dict[int, int] = {}
    kept = []  # so that no address is used twice

    def note(tensor: Tensor) -> None:  # handing the tensor back would tie it to its own graph, for good
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor.detach())

    with torch.autograd.graph.saved_tensors_hooks(note, lambda nothing: nothing):
        forward()
    return sum(storages.values())
