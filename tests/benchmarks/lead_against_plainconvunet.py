"""A lead trained alone against nnU-Net's PlainConvUNet: same data, patches, iterations and seeds.

    python -m tests.benchmarks.lead_against_plainconvunet OUT [--iterations 500] [--seeds 1 2]

Generates one site of four-modality cases, plans both networks for the same GPU memory, trains each from scratch with
its trainer's own defaults, predicts the held-out cases and appends one row per network and seed to OUT/dice.csv. Rows
that are there already are not computed again, so an interrupted run goes on. The table in results/ was written by this
command.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_conversion.conversion import convert_brats
from dataset_conversion.splits import split_by_table
from nnunet_fedmepd.demo_data.generate import generate
from nnunet_fedmepd.demo_data.settings import DemoDataSettings
from nnunet_fedmepd.evaluation.label_maps import mean_dice
from nnunet_fedmepd.modalities import BRATS_REGIONS
from nnunet_fedmepd.nnunet_plugin.registration import register

DATA = DemoDataSettings(shape=(48, 56, 48), spacing_mm=3.0, sites=1, cases_per_site=20, test_per_site=10, seed=11)
GPU_MEMORY_GB = 0.2
NETWORKS = ("PlainConvUNet", "FedMEPDNet")
COLUMNS = ("network", "seed", "iterations", *BRATS_REGIONS, "mean", "seconds")


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    args = parser.parse_args()
    folders = {name: args.out / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    os.environ.update({name: str(folder) for name, folder in folders.items()}, nnUNet_n_proc_DA="0")
    register()
    dataset = prepare(args.out, folders)
    table = args.out / "dice.csv"
    for seed in args.seeds:
        for network in args.networks:
            if (network, str(seed), str(args.iterations)) not in {tuple(row[:3]) for row in read(table)}:
                append(table, [network, seed, args.iterations, *measure(dataset, network, args.iterations, seed)])
    for row in [list(COLUMNS), *read(table)]:
        print("  ".join(f"{value:>15}" for value in row))


def prepare(out: Path, folders: dict[str, Path]) -> str:
    """Generate, convert, plan and preprocess; return the dataset's name."""
    mapping = generate(out / "data", DATA, workers=2)
    if not folders["nnUNet_raw"].is_dir():
        convert_brats("brats2020", out / "data", folders["nnUNet_raw"], split_by_table(mapping))
    dataset = next(folders["nnUNet_raw"].glob("Dataset500_*")).name
    if not (folders["nnUNet_preprocessed"] / dataset / "FedMEPDPlans_3d_fullres").is_dir():
        plan(dataset)
    return dataset


def plan(dataset: str) -> None:
    """Plan both networks with one patch and batch size, and preprocess for both."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    from nnunet_fedmepd.nnunet_plugin.fingerprint import FedMEPDFingerprintExtractor
    from nnunet_fedmepd.nnunet_plugin.planner import FedMEPDPlanner
    from nnunet_fedmepd.nnunet_plugin.preprocessor import FedMEPDPreprocessor

    os.environ["nnUNet_n_proc_DA"] = "1"  # nnU-Net's planner cannot plan with 0
    FedMEPDFingerprintExtractor(dataset, 2).run()
    stock = ExperimentPlanner(dataset, GPU_MEMORY_GB).plan_experiment()
    own = FedMEPDPlanner(dataset, GPU_MEMORY_GB).plan_experiment()
    os.environ["nnUNet_n_proc_DA"] = "0"
    patches = [plans["configurations"]["3d_fullres"]["patch_size"] for plans in (stock, own)]
    print("patches planned (PlainConvUNet, FedMEPDNet):", [[int(n) for n in patch] for patch in patches])
    DefaultPreprocessor(verbose=False).run(dataset, "3d_fullres", "nnUNetPlans", 2)
    FedMEPDPreprocessor(verbose=False).run(dataset, "3d_fullres", "FedMEPDPlans", 2)


def measure(dataset: str, network: str, iterations: int, seed: int) -> list[Any]:
    """Train one network and return its Dice per region, their mean, and the seconds that training took."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunet_fedmepd.nnunet_plugin.trainer import FedMEPDTrainer

    seed_everything(seed)
    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset
    plans_name, trainer_class = {
        "PlainConvUNet": ("nnUNetPlans", nnUNetTrainer),
        "FedMEPDNet": ("FedMEPDPlans", FedMEPDTrainer),
    }[network]
    plans = json.loads((folder / f"{plans_name}.json").read_text()) | {"continue_training": False}
    own = json.loads((folder / "FedMEPDPlans.json").read_text())["configurations"]["3d_fullres"]
    for key in ("patch_size", "batch_size"):
        plans["configurations"]["3d_fullres"][key] = own[key]
    architecture = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    for key in ("n_stages", "strides", "kernel_sizes", "n_conv_per_stage", "n_conv_per_stage_decoder"):
        architecture[key] = own["architecture"]["arch_kwargs"][key]
    doubled = 1 if network == "FedMEPDNet" else 2  # nnU-Net's widths are twice ours, stage by stage
    architecture["features_per_stage"] = [doubled * n for n in own["architecture"]["arch_kwargs"]["features_per_stage"]]
    description = json.loads((folder / "dataset.json").read_text())
    trainer = trainer_class(plans, "3d_fullres", "all", description, torch.device("cpu"))
    started = time.monotonic()
    train(trainer, iterations)
    seconds = round(time.monotonic() - started)
    scores = predict_and_score(trainer, Path(os.environ["nnUNet_raw"]) / dataset, f"{network}_{seed}_{iterations}")
    return [*(f"{score:.4f}" for score in scores), f"{np.mean(scores):.4f}", seconds]


def seed_everything(seed: int) -> None:
    """Seed all generators that training draws from."""
    for seeder in (random.seed, np.random.seed, torch.manual_seed):
        seeder(seed)  # type: ignore[operator]  # mypy sees their common supertype only


def train(trainer: Any, iterations: int, per_epoch: int = 50) -> None:
    """Run nnU-Net's training loop without validation and checkpoints."""
    trainer.num_epochs, trainer.num_iterations_per_epoch = iterations // per_epoch, per_epoch
    trainer.disable_checkpointing = True
    trainer.on_train_start()
    for _ in range(trainer.num_epochs):
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        outputs = [trainer.train_step(next(trainer.dataloader_train)) for _ in range(per_epoch)]
        trainer.on_train_epoch_end(outputs)
        trainer.current_epoch += 1


def predict_and_score(trainer: Any, raw: Path, name: str) -> list[float]:
    """Predict the held-out cases and return the mean Dice of each region."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    plans, configuration = trainer.plans_manager, trainer.configuration_manager
    weights, name_of_trainer = [trainer.network.state_dict()], type(trainer).__name__
    predictor.manual_initialization(
        trainer.network, plans, configuration, weights, trainer.dataset_json, name_of_trainer, (0, 1, 2)
    )
    out = raw.parents[1] / "predictions" / name
    out.mkdir(parents=True, exist_ok=True)
    cases = sorted({file.name.removesuffix(".nii.gz")[:-5] for file in (raw / "imagesTs").glob("*.nii.gz")})
    files = [[str(file) for file in sorted((raw / "imagesTs").glob(f"{case}_*"))] for case in cases]
    predictor.predict_from_files_sequential(files, [str(out / case) for case in cases], False, True, None)
    return list(mean_dice(raw / "labelsTs", out, BRATS_REGIONS).values())


def read(table: Path) -> list[list[str]]:
    """Return the rows of the table without its header."""
    return list(csv.reader(table.read_text().splitlines()))[1:] if table.is_file() else []


def append(table: Path, row: list[Any]) -> None:
    """Add a row to the table, atomically."""
    partial = table.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *read(table), row])
    os.replace(partial, table)


if __name__ == "__main__":
    main()
