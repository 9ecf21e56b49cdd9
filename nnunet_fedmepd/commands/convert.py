"""`fedmepd convert`: a BraTS release to one nnU-Net raw dataset per site."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from dataset_conversion.assignment import SiteAssignment
from dataset_conversion.conversion import FIRST_ID, convert_cases
from dataset_conversion.discovery import find_cases
from dataset_conversion.layouts import LAYOUTS, Layout, find_layout
from dataset_conversion.site_modalities import read_modalities, with_modalities
from dataset_conversion.splits import hold_out, one_site, split_as_published, split_by_institution, split_by_table
from nnunet_fedmepd.errors import ConfigurationError

MOST_WORKERS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("layout", choices=LAYOUTS, help="the release; brats2023 stands for all later ones too")
    parser.add_argument("source", type=Path, help="folder of the release, or one that holds it up to 2 levels deeper")
    parser.add_argument(
        "--split",
        metavar="CSV|institution|paper",
        help="who has which cases: a table case,site[,split] with the splits train, val and test, the institution in "
        "the names (brats2018), or the eight sites and the lead of the publication (brats2018, brats2020); without it "
        "one dataset holds all cases",
    )
    parser.add_argument(
        "--modalities",
        nargs="+",
        default=(),
        metavar="SITE=T1ce,T2|FILE",
        help="who has which modalities, or a CSV (site,modalities) or TOML file that says so; by default all",
    )
    parser.add_argument("--out", type=Path, help="where to write (default: $nnUNet_raw)")
    parser.add_argument("--first-id", type=int, default=FIRST_ID, help="first dataset id (default: %(default)s)")
    parser.add_argument("--prefix", help="start of the datasets' names (default: the release, such as BraTS2020)")
    parser.add_argument("--regions", action="store_true", help="train on overlapping regions instead of plain labels")
    parser.add_argument("--test-fraction", type=float, default=0.0, help="share of every site's patients to hold out")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of held-out patients (default: %(default)s)")
    add_workers(parser)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Declare `--workers`, by default one process per processor, at most eight."""
    default = min(os.cpu_count() or 1, MOST_WORKERS)
    parser.add_argument("--workers", type=int, default=default, help="processes (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Convert, and say what was written."""
    layout = find_layout(args.layout)
    out = args.out or _raw_folder()
    cases = find_cases(layout, args.source)
    sites = _split(args.split, layout, list(cases))
    sites = with_modalities(sites, read_modalities(args.modalities))
    if args.test_fraction:
        sites = hold_out(sites, args.test_fraction, args.seed, layout)
    folders = convert_cases(
        layout,
        cases,
        out,
        sites,
        first_id=args.first_id,
        prefix=args.prefix,
        regions=args.regions,
        workers=args.workers,
    )
    for folder in folders:
        print(_summary(folder))
    return 0


def _raw_folder() -> Path:
    if not (folder := os.environ.get("nnUNet_raw")):
        raise ConfigurationError("No output folder: give --out, or set nnUNet_raw as nnU-Net's documentation says.")
    return Path(folder)


def _split(split: str | None, layout: Layout, cases: list[str]) -> list[SiteAssignment]:
    if split is None:
        return one_site(cases)
    if split == "institution":
        return split_by_institution(layout, cases)
    if split == "paper":
        return split_as_published(layout, cases)
    return split_by_table(Path(split))


def _summary(dataset: Path) -> str:
    description = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    channels = len(description["channel_names"])
    images = len(list((dataset / "imagesTs").glob("*")))
    labels = len(list((dataset / "labelsTs").glob("*")))
    splits = dataset / "splits_final.json"
    folds = json.loads(splits.read_text(encoding="utf-8")) if splits.is_file() else []
    of_these = f" ({len(folds[0]['val'])} of them for validation)" if len(folds) == 1 else ""
    absent = sum(len(scans) for scans in description["fedmepd"]["absent_scans"].values())
    return (
        f"{dataset}: {description['numTraining']} training cases{of_these}, {images // channels} test cases "
        f"({labels} with segmentation), {'+'.join(description['channel_names'].values())}, {absent} scans absent"
    )
