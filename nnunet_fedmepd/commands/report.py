"""`fedmepd report`: one page about a federated run, also while it goes on."""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from pathlib import Path

from rich.console import Console

from nnunet_fedmepd.evaluation.tables import CHECKPOINTS, SPLITS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (RUN/report.html)")
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, help="whose evaluation to show (the first that is there)")
    parser.add_argument("--split", choices=SPLITS, help="evaluation on which cases to show (the first that is there)")


def run(args: argparse.Namespace) -> int:
    """Read the run, draw, and write the page."""
    from nnunet_fedmepd.commands.status import headline
    from nnunet_fedmepd.evaluation.report.page import write_page
    from nnunet_fedmepd.runtime.run_folder import RunFolder
    from nnunet_fedmepd.runtime.run_record import evaluation_to_show, read_record

    console = Console(soft_wrap=True, highlight=False)
    folder, file = RunFolder(args.run), args.out or args.run / "report.html"
    state = headline(folder.status(), folder.journal(), time.time())
    with console.status("reading the run") as status:
        evaluation = evaluation_to_show(args.run, args.checkpoint, args.split)
        record = read_record(folder, evaluation, state, lambda what: status.update(f"reading: {what}"))
        status.update("drawing")
        n_bytes = write_page(record, datetime.now(), file)
    console.print(f"{state}\n{file} ({n_bytes / 1e6:.1f} MB): open it in a browser; it needs no network")
    return 0
