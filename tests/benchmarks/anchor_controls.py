"""Whether trained sites use what the anchors say: test Dice with the run's anchors, with shuffled ones, with none.

    python -m tests.benchmarks.anchor_controls RUN

Nothing is trained. `shuffled` permutes the channels of every anchor, each by its own permutation: the anchors keep
their size and spread, and lose what they mean. (Their order would be no control: attention does not know it.)
`off` leaves calibration out. Needs nnUNet_raw and the run's models, as `fedmepd evaluate` does; leads do not calibrate.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from nnunet_fedmepd.nnunet_plugin.prediction import TrainedModel
from nnunet_fedmepd.runtime.evaluating import Predicting, SiteEvaluation
from nnunet_fedmepd.runtime.finished_run import SiteModel, open_finished_run
from nnunet_fedmepd.runtime.progress import counting_bar


def main() -> None:
    """Predict every site's test cases with each control and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    console, run = Console(), open_finished_run(args.run)
    leads = {site.name for site in run.federation.leads}
    targets = [target for target in run.site_models("final", "test") if target.site not in leads]
    table = Table(title="Dice on test cases, mean of the regions")
    for column in ("site", *CONTROLS):
        table.add_column(column)
    rows = []
    with counting_bar(console) as bar:
        task = bar.add_task("sites", total=len(targets))
        for target in targets:
            rows.append([mean_dice(target, control) for control in CONTROLS.values()])
            table.add_row(target.site, *(f"{dice:.3f}" for dice in rows[-1]))
            bar.advance(task)
    table.add_section()
    table.add_row("mean", *(f"{dice:.3f}" for dice in np.mean(rows, axis=0)))
    console.print(table)


Weights = dict[str, torch.Tensor]


def keep(weights: Weights) -> None:
    """Change nothing."""


def shuffle(weights: Weights) -> None:
    """Permute the channels of every anchor."""
    generator = torch.Generator().manual_seed(0)
    for name in (name for name in weights if name.endswith(".anchors")):
        order = torch.rand(weights[name].shape, generator=generator).argsort(-1)
        weights[name] = weights[name].gather(-1, order)


def switch_off(weights: Weights) -> None:
    """Leave calibration out."""
    for name in (name for name in weights if name.endswith(".in_use")):
        weights[name] = torch.tensor(False)


CONTROLS: dict[str, Callable[[Weights], None]] = {"anchors": keep, "shuffled": shuffle, "off": switch_off}


def mean_dice(target: SiteModel, control: Callable[[Weights], None]) -> float:
    """Return the mean over a site's test cases and regions."""
    with tempfile.TemporaryDirectory() as folder:
        model = changed(target.model, control, Path(folder))
        site, ending = (
            SiteEvaluation(replace(target, model=model), Predicting("cpu")),
            target.held_out.description["file_ending"],
        )
        scores = [
            score
            for case in target.held_out.cases
            for score in site.predict(case, Path(folder) / f"{case.name}{ending}")
        ]
    return float(np.mean([score.dice for score in scores]))


def changed(model: TrainedModel, control: Callable[[Weights], None], folder: Path) -> TrainedModel:
    """Write a model with other weights into an empty folder, in nnU-Net's layout."""
    fold = folder / model.folder.name
    fold.mkdir()
    for description in ("plans.json", "dataset.json"):
        shutil.copy(model.folder.parent / description, folder)
    checkpoint = torch.load(model.file, map_location="cpu", weights_only=False)
    control(checkpoint["network_weights"])
    torch.save(checkpoint, fold / model.file.name)
    return TrainedModel(fold, model.checkpoint)


if __name__ == "__main__":
    main()
