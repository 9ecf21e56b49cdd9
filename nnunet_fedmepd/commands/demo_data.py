"""`fedmepd demo-data OUT`: make multi-site brain tumour data in a BraTS layout."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_fedmepd.demo_data.generate import generate
from nnunet_fedmepd.demo_data.layouts import LAYOUTS
from nnunet_fedmepd.demo_data.picture import check_picture_file, draw_overview
from nnunet_fedmepd.demo_data.settings import BRATS_SHAPE, BRATS_SPACING_MM, DemoDataSettings
from nnunet_fedmepd.errors import ConfigurationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; their defaults are those of `DemoDataSettings`."""
    default = DemoDataSettings()
    parser.add_argument("out", type=Path, help="new folder, or one to complete after an interruption")
    parser.add_argument("--sites", type=int, default=default.sites, help="number of sites (%(default)s)")
    parser.add_argument(
        "--cases-per-site", type=int, nargs="+", default=[default.cases_per_site], metavar="N",
        help=f"one number for all sites or one for each ({default.cases_per_site})",
    )  # fmt: skip
    parser.add_argument(
        "--test-per-site", type=int, default=default.test_per_site, metavar="N",
        help="the last N cases of each site get the split `test` (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--val-per-site", type=int, default=default.val_per_site, metavar="N",
        help="the N cases before those get the split `val`: they choose the model (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=default.seed, help="(%(default)s)")
    parser.add_argument("--layout", choices=list(LAYOUTS), default=default.layout, help="(%(default)s)")
    _add_image_arguments(parser, default)
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="also draw a few of the cases")


def _add_image_arguments(parser: argparse.ArgumentParser, default: DemoDataSettings) -> None:
    shape = " ".join(str(n) for n in default.shape)
    parser.add_argument("--shape", type=int, nargs=3, metavar=("X", "Y", "Z"), help=f"voxels ({shape})")
    parser.add_argument("--spacing", type=float, metavar="MM", help=f"voxel size ({default.spacing_mm:g})")
    full = f"as BraTS: {'x'.join(str(n) for n in BRATS_SHAPE)} voxels of {BRATS_SPACING_MM:g} mm"
    parser.add_argument("--full", action="store_true", help=full)
    for name, meaning in (
        ("heterogeneity", "how far scanners and patients differ between sites; 0: next to nothing"),
        ("confounders", "strength of vessels, choroid plexus, meninges and white-matter lesions; 0: none"),
        ("mass_effect", "how far tumours push the brain aside; 0: not at all"),
    ):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=getattr(default, name), metavar="F", help=f"{meaning} (1)")


def run(args: argparse.Namespace) -> int:
    """Make the data set, draw the picture if asked to, and say where they are."""
    settings = _read_settings(args)
    if args.picture is not None:
        check_picture_file(args.picture)
    table = generate(args.out, settings, args.workers)
    print(f"{sum(settings.case_counts)} cases in {args.out / LAYOUTS[settings.layout].root}, listed in {table}")
    if args.picture is not None:
        print(f"picture: {draw_overview(table, args.picture)}")
    return 0


def _read_settings(args: argparse.Namespace) -> DemoDataSettings:
    shape, spacing_mm = _read_lattice(args)
    counts = tuple(args.cases_per_site)
    return DemoDataSettings(
        shape=shape,
        spacing_mm=spacing_mm,
        sites=args.sites,
        cases_per_site=counts[0] if len(counts) == 1 else counts,
        val_per_site=args.val_per_site,
        test_per_site=args.test_per_site,
        seed=args.seed,
        heterogeneity=args.heterogeneity,
        confounders=args.confounders,
        mass_effect=args.mass_effect,
        layout=args.layout,
    )


def _read_lattice(args: argparse.Namespace) -> tuple[tuple[int, int, int], float]:
    if not args.full:
        x, y, z = DemoDataSettings.shape if args.shape is None else args.shape
        return (x, y, z), DemoDataSettings.spacing_mm if args.spacing is None else args.spacing
    if args.shape is not None or args.spacing is not None:
        raise ConfigurationError("Demo data: --full says the shape and the spacing; leave out --shape and --spacing.")
    return BRATS_SHAPE, BRATS_SPACING_MM
