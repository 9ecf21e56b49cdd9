"""`fedmepd run`: a whole federation on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from nnunet_fedmepd.config.federation import VARIANTS
from nnunet_fedmepd.config.loading import load_federation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", help="federation file (TOML), or the name of a shipped recipe")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="of the run ($nnUNet_results/federations/NAME)")
    parser.add_argument("--variant", choices=list(VARIANTS), help="another method on the same sites, plans and seed")
    parser.add_argument("--rounds", type=int, help="instead of the file's number, to try it")
    parser.add_argument("--workers", type=int, help="sites that train at the same time, instead of the file's number")
    parser.add_argument("--devices", nargs="+", help="such as cuda:0 cuda:1, or cpu, instead of the file's")
    parser.add_argument("--profile", action="store_true", help="measure where a round's time goes: a table and traces")
    parser.add_argument("--overwrite", action="store_true", help="replace other trainings' models")


def run(args: argparse.Namespace) -> int:
    """Run the federation, or what is left of it."""
    from nnunet_fedmepd.commands.privacy_lines import spent_lines
    from nnunet_fedmepd.nnunet_plugin.planner import plans_name_of
    from nnunet_fedmepd.runtime.preparation import default_run_folder
    from nnunet_fedmepd.runtime.privacy_ledger import updates_sent
    from nnunet_fedmepd.runtime.run_folder import RunFolder
    from nnunet_fedmepd.runtime.running import run_federation

    federation, console = load_federation(args.file), Console(soft_wrap=True, highlight=False)
    if args.variant:
        federation = federation.as_variant(args.variant)
    if args.rounds is not None:
        federation = federation.shortened(args.rounds)
    federation = federation.on(args.devices, args.workers)
    folder = args.run or default_run_folder(federation)
    run_federation(federation, folder, console, args.overwrite, args.profile)
    console.print(f"The run is complete. Scores: fedmepd evaluate {folder}. A page about it: fedmepd report {folder}.")
    for line in spent_lines(federation, lambda site: updates_sent(RunFolder(folder), site)):
        console.print(line, markup=False)
    console.print("Predict with every site's model, for example:")
    console.print(
        f"nnUNetv2_predict -i IMAGES -o PREDICTIONS -d {federation.site[0].dataset} -tr FedMEPDTrainer "
        f"-p {plans_name_of(federation.planning.planner)} -c {federation.planning.configuration} "
        f"-f {federation.run.fold}"
    )
    return 0
