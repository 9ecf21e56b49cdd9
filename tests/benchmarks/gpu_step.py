"""A training step on a GPU, as nnU-Net takes it (float16, scaled loss, compiled), beside nnU-Net's networks.

    python -m tests.benchmarks.gpu_step [--patch 128] [--batch 2] [--repeats 30] [--eager] [--store FILE.csv]

Every network has a process of its own: all compile side by side, then one after the other is timed, alone on the GPU.
Medians. Compiled, a step should take at most 1.5 times that of nnU-Net's ResEnc M.
"""

from __future__ import annotations

import argparse
import csv
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.planned_networks import CANONICAL
from tests.benchmarks.training_steps import TrainingStep, compared_steps

# Row -> modalities that the site owns, name in `compared_steps`.
ROWS = {
    "FedMEPDNet, 1 of 4 modalities": (("T1ce",), "ours"),
    "FedMEPDNet, 2 of 4 modalities": (("T1ce", "FLAIR"), "ours"),
    "FedMEPDNet, 4 of 4 modalities": (CANONICAL, "ours"),
    "PlainConvUNet, 4 channels": (CANONICAL, "PlainConvUNet"),
    "ResEnc M, 4 channels": (CANONICAL, "ResEnc M"),
}
PUBLISHED = {f"published structure, {len(m)} of 4": (m, "published structure") for m in (("T1ce",), CANONICAL)}
REFERENCE = "ResEnc M, 4 channels"
WARM_UP_STEPS = 5


@dataclass(frozen=True)
class GpuStep:
    """What a network's step takes.

    Attributes:
        network: the row.
        mode: `compiled` or `eager`.
        patch: voxels an axis.
        batch: patches a step.
        milliseconds: median of a step.
        memory_gib: most that was allocated.
    """

    network: str
    mode: str
    patch: int
    batch: int
    milliseconds: float
    memory_gib: float


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--eager", action="store_true", help="not compiled; then with the published structure, too")
    parser.add_argument("--store", type=Path, help="append the numbers to this table")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_step: needs an NVIDIA GPU, torch sees none", file=sys.stderr)
        return 2
    steps = measure(args.patch, args.batch, args.repeats, compiled=not args.eager)
    Console(width=110).print(as_table(steps, torch.cuda.get_device_name()))
    if args.store:
        store(steps, args.store)
    return 0


def measure(patch: int, batch: int, repeats: int, compiled: bool) -> list[GpuStep]:
    """Return the numbers of every row."""
    rows = ROWS if compiled else ROWS | PUBLISHED
    processes = [ProcessPoolExecutor(1, get_context("spawn")) for _ in rows]
    ready = [
        process.submit(_prepare, *row, patch, batch, compiled)
        for process, row in zip(processes, rows.values(), strict=True)
    ]
    for each in ready:
        each.result()
    taken = [process.submit(_time, repeats).result() for process in processes]  # one after the other
    for process in processes:
        process.shutdown()
    make = partial(GpuStep, mode="compiled" if compiled else "eager", patch=patch, batch=batch)
    return [
        make(name, milliseconds=round(ms, 2), memory_gib=round(gib, 3))
        for name, (ms, gib) in zip(rows, taken, strict=True)
    ]


_step: TrainingStep | None = None


def _prepare(modalities: tuple[str, ...], name: str, patch: int, batch: int, compiled: bool) -> None:
    global _step  # noqa: PLW0603  # one network a process
    torch.backends.cudnn.benchmark = True  # as nnU-Net's command sets it
    (step,) = [step for step in compared_steps(modalities, patch, batch) if step.name == name]
    _step = step.on_gpu(compiled)
    for _ in range(WARM_UP_STEPS):
        _step()
    torch.cuda.synchronize()


def _time(repeats: int) -> tuple[float, float]:
    assert _step is not None  # _prepare came first
    torch.cuda.reset_peak_memory_stats()
    milliseconds = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        _step()
        end.record()
        torch.cuda.synchronize()
        milliseconds.append(begin.elapsed_time(end))
    return median(milliseconds), torch.cuda.max_memory_allocated() / 2**30


def as_table(steps: list[GpuStep], device: str) -> Table:
    """Return the numbers beside those of the reference."""
    (reference,) = [step for step in steps if step.network == REFERENCE]
    first = steps[0]
    title = f"Training step on {device}, {first.mode}, {first.patch}^3 x {first.batch}; ratios to {REFERENCE}"
    table = Table(title=title, title_justify="left")
    for column in ("network", "ms", "time ratio", "GiB", "memory ratio"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for step in steps:
        time, memory = step.milliseconds / reference.milliseconds, step.memory_gib / reference.memory_gib
        table.add_row(
            step.network, f"{step.milliseconds:.1f}", f"{time:.2f}", f"{step.memory_gib:.2f}", f"{memory:.2f}"
        )
    return table


def store(steps: list[GpuStep], file: Path) -> None:
    """Append the numbers to a table."""
    is_new = not file.exists()
    with file.open("a", newline="") as opened:
        writer = csv.writer(opened)
        if is_new:
            writer.writerow([field.name for field in fields(GpuStep)])
        writer.writerows(astuple(step) for step in steps)


if __name__ == "__main__":
    sys.exit(main())
