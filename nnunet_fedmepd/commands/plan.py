"""`fedmepd plan`: plan all sites of a federation together and preprocess their data."""

from __future__ import annotations

import argparse
import os

from rich.console import Console

from nnunet_fedmepd.config.loading import load_federation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", help="federation file (TOML), or the name of a shipped recipe")
    parser.add_argument(
        "-np",
        "--processes",
        type=int,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="that read and preprocess cases (%(default)s); 1 starts none",
    )


def run(args: argparse.Namespace) -> int:
    """Plan and preprocess what is not done yet."""
    from nnunet_fedmepd.runtime.planning import plan_together

    federation, console = load_federation(args.file), Console(soft_wrap=True, highlight=False)
    plan_together(federation, console, args.processes)
    console.print(f"All {len(federation.site)} sites are planned and preprocessed. Go on with: fedmepd run {args.file}")
    return 0
