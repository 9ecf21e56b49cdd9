"""`fedmepd convert-back`: predictions to the labels of a BraTS release."""

from __future__ import annotations

import argparse
from pathlib import Path

from dataset_conversion.layouts import LAYOUTS
from dataset_conversion.prediction import convert_predictions
from nnunet_fedmepd.commands.convert import add_workers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("layout", choices=LAYOUTS, help="the release whose labels to write")
    parser.add_argument("predictions", type=Path, help="folder that nnUNetv2_predict wrote")
    parser.add_argument("out", type=Path, help="folder to write, which must not exist yet")
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Convert, and say how many files were written."""
    files = convert_predictions(args.layout, args.predictions, args.out, workers=args.workers)
    print(f"{args.out}: {len(files)} predictions with the labels of {args.layout}")
    return 0
