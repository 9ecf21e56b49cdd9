"""`fedmepd demo`: the whole job on data it makes itself, with the commands that a user would type."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.evaluation.segmentation_picture import PredictedCase, draw_segmentations
from nnunet_fedmepd.modalities import BRATS_REGIONS

PLANNER, PLANS, CONFIGURATION = "FedMEPDTinyPlanner", "FedMEPDTinyPlans", "3d_fullres"
FIRST_ID = 500


@dataclass(frozen=True)
class DemoSite:
    """One site of the demo: its name in the generated data, its dataset and what its scanner delivers."""

    name: str
    dataset_id: int
    modalities: tuple[str, ...]

    @property
    def dataset(self) -> str:
        """The name of the site's nnU-Net dataset."""
        return f"Dataset{self.dataset_id:03d}_Demo_{self.name}"


SITES = (
    DemoSite("2013", FIRST_ID, ("T1", "T1ce", "T2", "FLAIR")),
    DemoSite("CBICA", FIRST_ID + 1, ("T2", "FLAIR")),
)


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does; cases are per site."""

    training_cases: int
    test_cases: int
    epochs: int
    iterations: int


FULL = DemoSize(training_cases=12, test_cases=6, epochs=6, iterations=50)
QUICK = DemoSize(training_cases=4, test_cases=2, epochs=1, iterations=10)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--out", type=Path, default=Path("fedmepd_demo"), help="folder to work in (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer cases and steps: shows that it runs, no more")
    parser.add_argument("--seed", type=int, default=1, help="of the generated data (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Generate, convert, plan, preprocess, train, predict, and print a table; goes on where it was interrupted."""
    size = QUICK if args.quick else FULL
    demo = Demo(args.out.resolve() / ("quick" if args.quick else "full"), size, args.seed)
    started = time.monotonic()
    demo.make_data()
    demo.plan()
    demo.train()
    demo.predict()
    demo.show_table()
    demo.draw_picture()
    demo.console.print(f"{time.monotonic() - started:.0f} s in all; everything is in {demo.folder}")
    return 0


class Demo:
    """Runs the commands one after the other in one folder; the folder remembers what is done.

    Args:
        folder: where data, plans and results go; the three nnU-Net folders lie inside.
        size: how much to do.
        seed: of the generated data.
    """

    def __init__(self, folder: Path, size: DemoSize, seed: int) -> None:
        self.folder, self.size, self.seed = folder, size, seed
        self.console = Console(soft_wrap=True, highlight=False)
        self.raw, self.preprocessed, self.results = (
            folder / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        )
        for path in (self.raw, self.preprocessed, self.results):
            path.mkdir(parents=True, exist_ok=True)

    def make_data(self) -> None:
        """Generate cases in the BraTS 2020 layout and convert them, one dataset per site."""
        cases = self.size.training_cases + self.size.test_cases
        source = self.folder / "BraTS_like_data"
        self._run(
            *("fedmepd", "demo-data", source, "--layout", "brats2020", "--sites", len(SITES), "--seed", self.seed),
            *(
                "--shape",
                48,
                56,
                48,
                "--spacing",
                3,
                "--cases-per-site",
                cases,
                "--test-per-site",
                self.size.test_cases,
            ),
        )
        if not all((self.raw / site.dataset).is_dir() for site in SITES):
            owned = [f"{site.name}={','.join(site.modalities)}" for site in SITES]
            self._run(
                *("fedmepd", "convert", "brats2020", source, "--split", source / "site_mapping.csv"),
                *("--modalities", *owned, "--first-id", FIRST_ID, "--prefix", "Demo"),
            )

    def plan(self) -> None:
        """Plan and preprocess every dataset."""
        ids = [site.dataset_id for site in SITES if not self._is_preprocessed(site)]
        if ids:
            self._run(
                *("nnUNetv2_plan_and_preprocess", "-d", *ids, "-pl", PLANNER, "-fpe", "FedMEPDFingerprintExtractor"),
                *("-c", CONFIGURATION, "-gpu_memory_target", 0.15, "-np", 1),
            )

    def train(self) -> None:
        """Train every site on its own, side by side, each on its share of the cores."""
        with ThreadPoolExecutor(max_workers=len(SITES)) as pool:
            list(pool.map(self._train, SITES))

    def predict(self) -> None:
        """Predict the held-out cases of every site."""
        for site in SITES:
            self._run(
                *("nnUNetv2_predict", "-i", self.raw / site.dataset / "imagesTs", "-o", self._predictions(site)),
                *("-d", site.dataset_id, "-c", CONFIGURATION, "-f", "all", *self._trained()),
                *("--disable_tta", "-npp", 0, "-nps", 0, "--continue_prediction"),
                site=site,
            )

    def show_table(self) -> None:
        """Print the Dice of the held-out cases, per site and region."""
        from nnunet_fedmepd.nnunet_plugin.region_dice import region_dice

        steps = self.size.epochs * self.size.iterations
        table = Table(
            title=f"Tumour Dice on {self.size.test_cases} held-out cases a site, after {steps} training steps"
        )
        for column in ("site", "modalities", "whole", "core", "enhancing", "mean"):
            table.add_column(column, justify="left" if column in {"site", "modalities"} else "right", no_wrap=True)
        for site in SITES:
            scores = region_dice(self.raw / site.dataset / "labelsTs", self._predictions(site), BRATS_REGIONS)
            means = [_mean(case[region] for case in scores.values()) for region in BRATS_REGIONS]
            table.add_row(site.name, "+".join(site.modalities), *(f"{value:.3f}" for value in [*means, _mean(means)]))
        self.console.print(table)

    def draw_picture(self) -> None:
        """Draw the first held-out case of every site."""
        cases = []
        for site in SITES:
            prediction = min(self._predictions(site).glob("*.nii.gz"))
            case, dataset = prediction.name.removesuffix(".nii.gz"), self.raw / site.dataset
            image = dataset / "imagesTs" / f"{case}_{len(site.modalities) - 1:04d}.nii.gz"
            title = f"{site.name}: {site.modalities[-1]}"
            cases.append(PredictedCase(title, image, dataset / "labelsTs" / prediction.name, prediction))
        self.console.print(f"picture: {draw_segmentations(cases, self.folder / 'segmentations.png')}")

    def _train(self, site: DemoSite) -> None:
        fold = self.results / site.dataset / f"FedMEPDTrainer__{PLANS}__{CONFIGURATION}" / "fold_all"
        if not (fold / "checkpoint_final.pth").is_file():
            go_on = ["--c"] if (fold / "checkpoint_latest.pth").is_file() else []
            self._run("nnUNetv2_train", site.dataset_id, CONFIGURATION, "all", *self._trained(), *go_on, site=site)

    @staticmethod
    def _trained() -> tuple[str, ...]:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        return ("-tr", "FedMEPDTrainer", "-p", PLANS, "-device", device)

    def _is_preprocessed(self, site: DemoSite) -> bool:
        return (self.preprocessed / site.dataset / "gt_segmentations").is_dir()

    def _predictions(self, site: DemoSite) -> Path:
        return self.folder / "predictions" / site.name

    def _run(self, *command: object, site: DemoSite | None = None) -> None:
        """Run one command line, printed first; its output goes to a log file, whose end is shown if it fails."""
        words = [str(word) for word in command]
        log = self.folder / f"{words[0]}{f'_{site.name}' if site else ''}.log"
        self.console.print(f"$ {shlex.join(words).replace(str(self.folder) + os.sep, '')}", style="bold")
        with log.open("w") as output:
            done = subprocess.run(
                words, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder, env=self._environment(), check=False
            )
        if done.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise FedMEPDError(f"`{words[0]}` failed with exit code {done.returncode}. The end of {log}:\n{tail}")

    def _environment(self) -> dict[str, str]:
        scripts = sysconfig.get_path("scripts")
        return {
            **os.environ,
            "PATH": os.pathsep.join([scripts, str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
            "nnUNet_n_proc_DA": "0",
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(SITES))),
            "FEDMEPD_NUM_EPOCHS": str(self.size.epochs),
            "FEDMEPD_NUM_ITERATIONS_PER_EPOCH": str(self.size.iterations),
            "FEDMEPD_NUM_VAL_ITERATIONS_PER_EPOCH": "2",
            "FEDMEPD_SAVE_EVERY": "1",
            "FEDMEPD_FINAL_VALIDATION": "0",
            "FEDMEPD_INITIAL_LR": "2e-3",
        }


def _mean(values: Iterable[float] | Sequence[float]) -> float:
    numbers = np.array([value for value in values if not np.isnan(value)])
    return float(numbers.mean()) if len(numbers) else float("nan")
