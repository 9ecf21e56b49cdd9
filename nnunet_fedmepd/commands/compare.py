"""`fedmepd compare`: several methods on the same sites, plans and splits."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from rich.console import Console

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import load_federation, parse_federation
from nnunet_fedmepd.config.methods import parse_methods
from nnunet_fedmepd.errors import ConfigurationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", help="federation file (TOML), or the name of a shipped recipe; planned before")
    parser.add_argument(
        "--methods",
        default="local,fedavg,fedmema,fedmepd,pooled",
        metavar="A,B,...",
        help="variants; `pooled` trains on the data of all sites; VARIANT:KEY=VALUE changes a value, such as "
        "fedmepd:method.anchors=false; NAME=... names a method, or takes another file (default: %(default)s)",
    )
    parser.add_argument("--seeds", default="1", metavar="1,2,...", help="of the trainings (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder; the same command goes on with it")
    parser.add_argument("--baseline", help="method that the others are tested against (local, or the first)")
    parser.add_argument("--pooled-factor", type=int, default=3, help="pooled trains so many times longer (%(default)s)")
    parser.add_argument("--rounds", type=int, help="instead of the file's number, to try it")
    parser.add_argument("--fold", type=int, help="instead of the file's; without one there is no plateau to compare at")
    parser.add_argument("--workers", type=int, help="sites that train at the same time, instead of the file's number")
    parser.add_argument("--devices", nargs="+", help="such as cuda:0 cuda:1, or cpu, instead of the file's")
    parser.add_argument("--mirroring", action="store_true", help="predict mirrored images, too: up to 8 times slower")
    parser.add_argument(
        "--drop-small", action="store_true", help="drop components below a size chosen on validation cases"
    )
    parser.add_argument(
        "--show", action="store_true", help="train nothing: show what has ended, scored first if need be"
    )


def run(args: argparse.Namespace) -> int:
    """Train and evaluate what is not done yet; print the tables and draw the figure."""
    from nnunet_fedmepd.evaluation.comparison import compare
    from nnunet_fedmepd.evaluation.comparison_views import comparison_table, draw_comparison
    from nnunet_fedmepd.evaluation.convergence import converge
    from nnunet_fedmepd.evaluation.convergence_table import convergence_table
    from nnunet_fedmepd.runtime.comparing import Comparison, Scoring
    from nnunet_fedmepd.runtime.devices import devices_of_workers
    from nnunet_fedmepd.runtime.evaluating import Predicting

    console = Console(soft_wrap=True, highlight=False)
    if args.pooled_factor < 1:
        raise ConfigurationError(f"--pooled-factor {args.pooled_factor}: expected 1 or more.")
    adapt = functools.partial(_adapted, args)
    federation = adapt(load_federation(args.file))
    if args.drop_small and federation.run.fold == "all":
        raise ConfigurationError("--drop-small chooses its limits on validation cases: give a fold, such as --fold 0.")
    methods, out = parse_methods(args.methods, federation, adapt), args.out.resolve()
    baseline = _baseline(args.baseline, [method.name for method in methods])
    scoring = Scoring(Predicting(devices_of_workers(federation.run)[0], args.mirroring), args.drop_small)
    comparison = Comparison(methods, _seeds(args.seeds), out, scoring, args.pooled_factor, console)
    if federation.run.fold == "all":
        console.print("No validation cases (run.fold is 'all'): methods are compared at the end of training only.")
    rows = comparison.collect() if args.show else comparison.run()
    if not rows:
        raise ConfigurationError(f"Nothing has ended in {out} yet; start the command without --show.")
    results = compare(rows, baseline, [site.name for site in federation.leads])
    remark = ", small components dropped" if args.drop_small else ""
    for checkpoint in comparison.checkpoints:
        console.print(comparison_table(results, checkpoint, baseline, remark))
    if federation.run.fold != "all":  # with it, validation patches come from training cases
        console.print(convergence_table(converge(comparison.curves(), baseline), baseline))
    figure = draw_comparison(results, comparison.table.with_suffix(".png"), remark)
    console.print(f"every score: {comparison.table}\nfigure: {figure}")
    return 0


def _adapted(args: argparse.Namespace, federation: Federation) -> Federation:
    """Return a federation with the devices, rounds and fold that were asked for."""
    federation = federation.on(args.devices, args.workers)
    if args.rounds is not None:
        federation = federation.shortened(args.rounds)
    if args.fold is not None:
        file = federation.model_dump()
        federation = parse_federation({**file, "run": {**file["run"], "fold": args.fold}}, "--fold")
    return federation


def _baseline(asked: str | None, names: list[str]) -> str:
    if asked is not None and asked not in names:
        raise ConfigurationError(f"The baseline {asked!r} is none of the methods; expected one of {', '.join(names)}.")
    return asked or ("local" if "local" in names else names[0])


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--seeds {text!r}: expected whole numbers, separated by commas.") from None
    if len(set(seeds)) < len(seeds):
        raise ConfigurationError(f"--seeds {text!r}: a seed is named twice.")
    return seeds
