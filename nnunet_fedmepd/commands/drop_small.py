"""`fedmepd drop-small`: remove components that are too small to be believed from predictions."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from dataset_conversion.partial import check_absent, complete_folder, writing_to
from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.regions import scored_regions
from nnunet_fedmepd.evaluation.small_components import describe_limits, drop_small_components, read_limits
from nnunet_fedmepd.evaluation.tables import CHECKPOINTS, EvaluationFolder

_DESCRIPTIONS = ("dataset.json", "plans.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("predictions", type=Path, help="folder that nnUNetv2_predict wrote")
    parser.add_argument("out", type=Path, help="folder to write, which must not exist yet")
    parser.add_argument(
        "--run",
        type=Path,
        required=True,
        help="whose limits to take: `fedmepd evaluate RUN --drop-small` chooses them",
    )
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, default="final", help="whose limits (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write every prediction without its small components, and say which were dropped."""
    from nnunet_fedmepd.nnunet_plugin.label_files import LabelFiles
    from nnunet_fedmepd.runtime.progress import counting

    check_absent(args.out)
    dataset, plans = (_read(args.predictions / name) for name in _DESCRIPTIONS)
    file_of_limits = EvaluationFolder(args.run, args.checkpoint).limits
    limits, regions = read_limits(file_of_limits), scored_regions(dataset)
    if unknown := sorted(set(limits) - set(regions)):
        raise DatasetError(
            "The limits are not for these predictions",
            file=file_of_limits,
            expected=f"limits of {', '.join(regions)}, the regions of {args.predictions / 'dataset.json'}",
            found=", ".join(unknown),
            remedy="name the run whose model predicted",
        )
    files, predictions = LabelFiles(plans), sorted(args.predictions.glob(f"*{dataset['file_ending']}"))
    if not predictions:
        raise DatasetError("There is no prediction", file=args.predictions, expected=f"*{dataset['file_ending']}")
    console, n_changed = Console(soft_wrap=True, highlight=False), 0
    console.print(describe_limits(limits))
    bar = counting(console, "dropping small components", len(predictions))
    with writing_to(args.out), complete_folder(args.out) as folder, bar as advance:
        for file in predictions:
            predicted = files.read(file)
            labels = drop_small_components(predicted.labels, predicted.spacing_mm, regions, limits)
            files.write(labels, predicted.properties, folder / file.name)
            if n_voxels := int((labels != predicted.labels).sum()):
                n_changed += 1
                console.print(f"{file.name}: {n_voxels} voxels changed")
            advance()
        for name in _DESCRIPTIONS:
            shutil.copyfile(args.predictions / name, folder / name)
    console.print(f"{args.out}: {len(predictions)} predictions, {n_changed} of them changed")
    return 0


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise DatasetError(
            "This is no folder of predictions", file=file, remedy="name the folder that nnUNetv2_predict wrote"
        )
    return json.loads(file.read_text("utf-8"))
