"""`fedmepd demo`: a whole federation on data it makes itself, with the commands that a user would type."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from nnunet_fedmepd.config.federation import SiteTable
from nnunet_fedmepd.config.loading import load_federation, recipe
from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.evaluation.label_maps import mean_dice
from nnunet_fedmepd.evaluation.segmentation_picture import PredictedCase, draw_segmentations
from nnunet_fedmepd.modalities import BRATS_REGIONS

PREFIX = "Demo"
LOCAL, FEDERATED = "local", "FedMEPD"
VARIANT_OF = {LOCAL: "local", FEDERATED: "fedmepd"}


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does; cases are per site."""

    recipe: str
    training_cases: int
    test_cases: int
    methods: tuple[str, ...]


FULL = DemoSize("demo", training_cases=6, test_cases=6, methods=(LOCAL, FEDERATED))
QUICK = DemoSize("demo_quick", training_cases=3, test_cases=1, methods=(FEDERATED,))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--out", type=Path, default=Path("fedmepd_demo"), help="folder to work in (%(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="hardly any training, nothing to compare: shows that it runs"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the generated data (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Make data, plan together, train alone and federated, predict, compare; goes on where it was interrupted."""
    size = QUICK if args.quick else FULL
    demo = Demo(args.out.resolve() / ("quick" if args.quick else "full"), size, args.seed)
    started = time.monotonic()
    demo.make_data()
    demo.plan()
    demo.train()
    demo.predict()
    demo.show_table()
    demo.draw_picture()
    demo.show_next_steps()
    demo.console.print(f"{time.monotonic() - started:.0f} s in all; everything is in {demo.folder}")
    return 0


class Demo:
    """Runs the commands one after the other in one folder; the folder remembers what is done.

    Args:
        folder: where data, plans and results go; nnU-Net's folders lie inside, results of each method in their own.
        size: how much to do.
        seed: of the generated data.
    """

    def __init__(self, folder: Path, size: DemoSize, seed: int) -> None:
        self.folder, self.size, self.seed = folder, size, seed
        self.console = Console(soft_wrap=True, highlight=False)
        self.federation_file = recipe(size.recipe)
        self.federation = load_federation(self.federation_file)
        self.raw, self.preprocessed = folder / "nnUNet_raw", folder / "nnUNet_preprocessed"
        for path in (self.raw, self.preprocessed, *map(self._results, size.methods)):
            path.mkdir(parents=True, exist_ok=True)

    def make_data(self) -> None:
        """Generate cases in the BraTS 2020 layout and convert them, one dataset per site."""
        sites, source = self.federation.site, self.folder / "BraTS_like_data"
        cases = self.size.training_cases + self.size.test_cases
        self._run(
            *("fedmepd", "demo-data", source, "--layout", "brats2020", "--sites", len(sites), "--seed", self.seed),
            *("--shape", 48, 56, 48, "--spacing", 3),
            *("--cases-per-site", cases, "--test-per-site", self.size.test_cases),
        )
        if not all((self.raw / self._dataset(site)).is_dir() for site in sites):
            owned = [f"{site.name}={','.join(site.modalities or self.federation.modalities)}" for site in sites]
            self._run(
                *("fedmepd", "convert", "brats2020", source, "--split", source / "site_mapping.csv"),
                *("--modalities", *owned, "--first-id", sites[0].dataset, "--prefix", PREFIX),
            )

    def plan(self) -> None:
        """Plan all sites together and preprocess every dataset."""
        self._run("fedmepd", "plan", self.federation_file)

    def train(self) -> None:
        """Train every site alone, and all of them in the federation: same plans, steps and seed."""
        for method in self.size.methods:
            command = ("fedmepd", "run", self.federation_file, "--variant", VARIANT_OF[method], *self._workers())
            self._run(*command, "--run", self._run_folder(method), method=method, shown=True)

    def _workers(self) -> tuple[str, ...]:
        return () if _has_gpu() else ("--workers", str(min(os.cpu_count() or 1, len(self.federation.site))))

    def predict(self) -> None:
        """Predict the held-out cases of every site with the models of every method, two sites at a time."""
        with ThreadPoolExecutor(2, initializer=_take_half_of_the_cores, initargs=(iter((0, 1)),)) as pool:
            list(pool.map(lambda job: self._predict(*job), self._jobs()))

    def show_table(self) -> None:
        """Print the Dice of the held-out cases, per site, method and region."""
        steps = self.federation.rounds * int(self.federation.training["num_iterations_per_epoch"])
        cases = f"{self.size.test_cases} held-out case{'s' if self.size.test_cases > 1 else ''}"
        table = Table(title=f"Tumour Dice on {cases} a site, after {steps} training steps")
        for column in ("site", "modalities", "method", "whole", "core", "enhancing", "mean"):
            left = column in {"site", "modalities", "method"}
            table.add_column(column, justify="left" if left else "right", no_wrap=True)
        scores = {(site.name, method): self._scores(site, method) for site, method in self._jobs()}
        for site in self.federation.site:
            for i, method in enumerate(self.size.methods):
                who = (f"{site.name}{' (lead)' * site.lead}", "+".join(self._modalities(site))) if i == 0 else ("", "")
                table.add_row(*who, method, *_cells(scores[site.name, method]))
            table.add_section()
        for method in self.size.methods:
            sites = [scores[site.name, method] for site in self.federation.site]
            table.add_row("mean", "", method, *_cells([fmean(column) for column in zip(*sites, strict=True)]))
        self.console.print(table)

    def draw_picture(self) -> None:
        """Draw the first held-out case of every site."""
        cases = [self._drawn_case(site) for site in self.federation.site]
        self.console.print(f"picture: {draw_segmentations(cases, self.folder / 'segmentations.png')}")

    def show_next_steps(self) -> None:
        """Say how to look into the federated run, and how to compare methods on these data."""
        folders = shlex.join(f"{name}={path}" for name, path in self._folders(FEDERATED).items())
        run, methods = shlex.quote(str(self._run_folder(FEDERATED))), ("--methods", "local,fedavg,fedmepd")
        compare = ("fedmepd", "compare", self.size.recipe, *methods, *self._workers())
        self.console.print(
            f"Look closer: export {folders}; fedmepd evaluate {run} && fedmepd report {run}\n"
            f"Then compare: {shlex.join([*compare, '--out', str(self.folder / 'comparison')])}"
        )

    def _drawn_case(self, site: SiteTable) -> PredictedCase:
        file = min(self._predictions(site, FEDERATED).glob("*.nii.gz")).name
        dataset, last = self.raw / self._dataset(site), len(self._modalities(site)) - 1
        return PredictedCase(
            f"{site.name}: {self._modalities(site)[last]}",
            dataset / "imagesTs" / f"{file.removesuffix('.nii.gz')}_{last:04d}.nii.gz",
            dataset / "labelsTs" / file,
            {method: self._predictions(site, method) / file for method in self.size.methods},
        )

    def _predict(self, site: SiteTable, method: str) -> None:
        device = () if _has_gpu() else ("-device", "cpu")
        self._run(
            *("nnUNetv2_predict", "-i", self.raw / self._dataset(site) / "imagesTs"),
            *("-o", self._predictions(site, method), "-d", site.dataset, "-f", "all"),
            *("-tr", "FedMEPDTrainer", "-p", "FedMEPDTinyPlans", "-c", self.federation.planning.configuration),
            *("--disable_tta", "-npp", 0, "-nps", 0, "--continue_prediction", *device),
            method=method,
            log=f"predict_{method}_{site.name}",
        )

    def _jobs(self) -> list[tuple[SiteTable, str]]:
        return [(site, method) for site in self.federation.site for method in self.size.methods]

    def _scores(self, site: SiteTable, method: str) -> list[float]:
        """Return the mean Dice of each region, and their mean."""
        references = self.raw / self._dataset(site) / "labelsTs"
        means = list(mean_dice(references, self._predictions(site, method), BRATS_REGIONS).values())
        return [*means, fmean(means)]

    def _modalities(self, site: SiteTable) -> tuple[str, ...]:
        return site.modalities or self.federation.modalities

    @staticmethod
    def _dataset(site: SiteTable) -> str:
        return f"Dataset{site.dataset}_{PREFIX}_{site.name}"

    def _predictions(self, site: SiteTable, method: str) -> Path:
        return self.folder / "predictions" / method / site.name

    def _run_folder(self, method: str) -> Path:
        return self.folder / "runs" / method

    def _results(self, method: str) -> Path:
        return self.folder / f"nnUNet_results_{method}"

    def _run(self, *command: object, method: str = FEDERATED, shown: bool = False, log: str | None = None) -> None:
        """Run one command line, printed first; its output goes to a log file, whose end is shown if it fails."""
        words = [str(word) for word in command]
        file = self.folder / f"{log or '_'.join(words[:2] if words[0] == 'fedmepd' else words[:1])}.log"
        self.console.print(f"$ {shlex.join(words).replace(str(self.folder) + os.sep, '')}", style="bold")
        environment = self._environment(method)
        if shown:
            code = subprocess.run(words, cwd=self.folder, env=environment, check=False).returncode
            ending = ""
        else:
            with file.open("w") as output:
                done = subprocess.run(
                    words, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder, env=environment, check=False
                )
            code = done.returncode
            ending = f" The end of {file}:\n" + "\n".join(file.read_text(errors="replace").splitlines()[-20:])
        if code:
            raise FedMEPDError(f"`{' '.join(words[:2])}` failed with exit code {code}.{ending}")

    def _environment(self, method: str) -> dict[str, str]:
        scripts = sysconfig.get_path("scripts")
        return {
            **os.environ,
            "PATH": os.pathsep.join([scripts, str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            **{name: str(path) for name, path in self._folders(method).items()},
        }

    def _folders(self, method: str) -> dict[str, Path]:
        return {
            "nnUNet_raw": self.raw,
            "nnUNet_preprocessed": self.preprocessed,
            "nnUNet_results": self._results(method),
        }


def _take_half_of_the_cores(halves: Iterator[int]) -> None:
    """Keep what this thread starts on every other core: on a CPU, nnU-Net's prediction takes all that it may have."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[next(halves) :: 2] or cores)


def _cells(scores: Sequence[float]) -> list[str]:
    return [f"{score:.3f}" for score in scores]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
