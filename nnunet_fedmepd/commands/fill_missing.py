"""`fedmepd fill-missing`: blank images for scans that cases to predict lack."""

from __future__ import annotations

import argparse
from pathlib import Path

from dataset_conversion.blank import fill_missing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, help="images to predict, named <case>_0000.nii.gz and so on")
    parser.add_argument("--dataset-json", type=Path, required=True, help="dataset.json of the model's dataset")


def run(args: argparse.Namespace) -> int:
    """Fill, and say which scans are blank now."""
    filled = fill_missing(args.folder, args.dataset_json)
    for case, channels in filled.items():
        print(f"{case}: {', '.join(channels)} written as blank")
    print(f"{args.folder}: {len(filled)} cases completed")
    return 0
