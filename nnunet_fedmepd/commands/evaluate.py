"""`fedmepd evaluate`: score every site's model on its held-out cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.evaluation.printing import site_table, subset_table
from nnunet_fedmepd.evaluation.tables import CHECKPOINTS, SPLITS, EvaluationFolder

if TYPE_CHECKING:
    from nnunet_fedmepd.runtime.finished_run import FinishedRun, SiteModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", type=Path, help="folder of a finished run")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what is evaluated, and how."""
    parser.add_argument(
        "--checkpoint",
        choices=CHECKPOINTS,
        default="final",
        help="the model after the last round, or the best on validation cases, which needs a fold (%(default)s)",
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="which cases: imagesTs, or the fold's (test)")
    parser.add_argument(
        "--subsets", action="store_true", help="also the lead's model, shown every subset of modalities"
    )
    parser.add_argument(
        "--drop-small", action="store_true", help="drop components below a size chosen on validation cases"
    )
    parser.add_argument("--mirroring", action="store_true", help="average over mirrored images: up to 8 times slower")
    parser.add_argument("--device", help="such as cuda:0 or cpu (the first GPU, else the CPU)")


def run(args: argparse.Namespace) -> int:
    """Predict and score what is not scored yet, and print the tables."""
    from nnunet_fedmepd.runtime.finished_run import open_finished_run

    evaluate(open_finished_run(args.run), args)
    return 0


def evaluate(finished: FinishedRun, args: argparse.Namespace, device: str = "") -> None:
    """Do what the options ask for, and print the tables.

    Args:
        finished: the run.
        args: of `add_options`.
        device: where the options name none; empty: the first GPU, else the CPU.
    """
    from nnunet_fedmepd.runtime.devices import default_device, require_devices
    from nnunet_fedmepd.runtime.dropping import evaluate_without_small
    from nnunet_fedmepd.runtime.evaluating import Predicting, evaluate_sites, evaluate_subsets

    console = Console(soft_wrap=True, highlight=False)
    if args.drop_small and args.split == "val":
        raise ConfigurationError(
            "--drop-small chooses its limits on validation cases, which are no measure of them. Leave out --split val."
        )
    targets = finished.site_models(args.checkpoint, args.split)
    leads = [target for target in targets if finished.federation.site_named(target.site).lead]
    if args.subsets and not any(lead.held_out.cases for lead in leads):
        raise ConfigurationError(
            "--subsets needs a lead with held-out cases: no site of this run led and holds out cases. Set lead = true "
            "at a site with every modality, and give it test cases."
        )
    for site in finished.federation.site:
        if site.name not in finished.results:
            console.print(f"site {site.name}: not trained in this run, nothing to evaluate")
    _tell_what_is_left_out(targets, console)
    folder = EvaluationFolder(finished.path, args.checkpoint, args.split)
    chosen = args.device or device or default_device()
    require_devices([chosen])
    predicting = Predicting(chosen, args.mirroring)
    if args.drop_small:
        validation = finished.site_models(args.checkpoint, "val")
        scores = evaluate_without_small(targets, validation, folder, predicting, console)
    else:
        scores = evaluate_sites(targets, folder, predicting, console)
    name, cases = finished.federation.name, {"test": "test", "val": "validation"}[args.split]
    what = ", small components dropped" if args.drop_small else ""
    title = f"{name}: {args.checkpoint} checkpoint, {cases} cases{what}, mean ± SD over cases"
    console.print(site_table(scores, title, [lead.site for lead in leads]))
    if args.subsets:
        shown = evaluate_subsets(leads, folder, predicting, console)
        who = ", ".join(lead.site for lead in leads)
        what = ", nothing dropped" if args.drop_small else ""
        title = f"{name}: Dice of {who} with the modalities marked ●{what}, mean over cases"
        console.print(subset_table(shown, finished.federation.modalities, title))
    console.print(f"Scores per case: {replace(folder, large_only=args.drop_small).path}")


def _tell_what_is_left_out(targets: Sequence[SiteModel], console: Console) -> None:
    for target in targets:
        if names := target.held_out.without_reference:
            console.print(
                f"site {target.site}: {len(names)} test cases have no reference and are left out: {names[0]} ..."
            )
        if not target.held_out.cases:
            console.print(f"site {target.site}: no held-out cases, nothing to evaluate")
