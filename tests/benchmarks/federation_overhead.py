"""What a federation on one machine costs beyond the sites' own training.

    python -m tests.benchmarks.federation_overhead OUT [--rounds 4] [--iterations 25] [--repeats 3]

Generates three sites (four modalities; T1ce; T2 and FLAIR), plans them together, and then, `--repeats` times, in
turn: runs the federation with one worker, and trains every site alone by nnU-Net's own loop for as many epochs. Both
are timed from the first line to the last, start of the trainers and final checkpoints included, in one process on one
thread.
Prints every repeat and the medians of the ratios, of wall clock and of processor time: on a busy machine only the
latter means something.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from dataset_conversion.conversion import convert_brats
from dataset_conversion.site_modalities import with_modalities
from dataset_conversion.splits import split_by_table
from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.demo_data.generate import generate
from nnunet_fedmepd.demo_data.settings import DemoDataSettings
from nnunet_fedmepd.nnunet_plugin.registration import register

DATA = DemoDataSettings(shape=(48, 56, 48), spacing_mm=3.0, sites=3, cases_per_site=5, test_per_site=1, seed=11)
OWNED = (("T1", "T1ce", "T2", "FLAIR"), ("T1ce",), ("T2", "FLAIR"))
QUIET = Console(quiet=True)


class Seconds(NamedTuple):
    """What something took."""

    wall: float
    processor: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folders = {name: args.out / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    os.environ.update(
        {name: str(folder) for name, folder in folders.items()}, nnUNet_n_proc_DA="0", OMP_NUM_THREADS="1"
    )
    register()
    federation = prepare(args.out, folders["nnUNet_raw"], args.rounds, args.iterations)
    ratios = []
    for repeat in range(args.repeats):
        together = timed(lambda: run_together(federation, args.out / "run", folders["nnUNet_results"]))
        alone = timed(lambda: train_alone(federation, folders["nnUNet_preprocessed"], folders["nnUNet_results"]))
        ratios.append(Seconds(together.wall / alone.wall, together.processor / alone.processor))
        print(
            f"repeat {repeat + 1}: federation {together.wall:.1f} s ({together.processor:.1f} s of processor), "
            f"sites alone {alone.wall:.1f} s ({alone.processor:.1f} s)"
        )
    wall, processor = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"median ratio {wall:.3f}, of processor time {processor:.3f}")


def timed(work: Callable[[], None]) -> Seconds:
    """Return what `work` takes."""
    wall, processor = time.monotonic(), time.process_time()
    work()
    return Seconds(time.monotonic() - wall, time.process_time() - processor)


def prepare(out: Path, raw: Path, rounds: int, iterations: int) -> Federation:
    """Generate, convert and plan; return the federation."""
    from nnunet_fedmepd.runtime.planning import plan_together

    sites = split_by_table(generate(out / "data", DATA, workers=2))
    names = sorted(site.name for site in sites)
    if not raw.is_dir():
        convert_brats("brats2020", out / "data", raw, with_modalities(sites, dict(zip(names, OWNED, strict=True))))
    federation = Federation.model_validate(
        {
            "name": "overhead",
            "modalities": OWNED[0],
            "rounds": rounds,
            "site": [
                {"name": folder.name.split("_")[-1], "dataset": folder.name, "lead": i == 0}
                for i, folder in enumerate(sorted(raw.glob("Dataset*")))
            ],
            "planning": {"planner": "FedMEPDTinyPlanner", "gpu_memory_gb": 0.15},
            "training": {
                "num_iterations_per_epoch": iterations,
                "num_val_iterations_per_epoch": 2,
                "plot_every": 1000,
                "final_validation": False,
            },
            "run": {"devices": ["cpu"]},
        }
    )
    plan_together(federation, QUIET)
    return federation


def run_together(federation: Federation, folder: Path, results: Path) -> None:
    """Run the whole federation."""
    from nnunet_fedmepd.runtime.running import run_federation

    for old in (folder, results):
        shutil.rmtree(old, ignore_errors=True)
    run_federation(federation, folder, QUIET)


def train_alone(federation: Federation, preprocessed: Path, results: Path) -> None:
    """Train all sites by nnU-Net's own training loop, one after the other."""
    from nnunet_fedmepd.nnunet_plugin.planner import plans_name_of
    from nnunet_fedmepd.nnunet_plugin.run_plans import plans_for_run
    from nnunet_fedmepd.nnunet_plugin.trainer import FedMEPDTrainer

    shutil.rmtree(results, ignore_errors=True)
    for site in federation.site:
        folder = preprocessed / str(site.dataset)
        plans = json.loads((folder / f"{plans_name_of(federation.planning.planner)}.json").read_text())
        plans = {**plans_for_run(plans, federation), "continue_training": False}
        description = json.loads((folder / "dataset.json").read_text())
        configuration = federation.planning.configuration
        FedMEPDTrainer(plans, configuration, "all", description, torch.device("cpu")).run_training()  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
