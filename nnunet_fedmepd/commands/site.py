"""`fedmepd site`: a hospital's side of a federation over a network."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nnunet_fedmepd.commands.deployment_extra import require_deployment_extra
from nnunet_fedmepd.commands.evaluate import add_options, evaluate
from nnunet_fedmepd.errors import ConfigurationError

if TYPE_CHECKING:
    from nnunet_fedmepd.deployment.kit import SiteKit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    keys = actions.add_parser("keys", help="make this site's private keys here, and a request for the coordinator")
    keys.add_argument("site", help="its name in the federation file")
    keys.add_argument("folder", type=Path, help="new folder; the kit is to be copied there later")
    for name, text in {
        "check": "check this site's keys, its data, and the way to the coordinator",
        "up": "check, join the federation, and stay in it until it ends",
    }.items():
        actions.add_parser(name, help=text).add_argument("kit", type=Path, help="this site's kit")
    evaluation = actions.add_parser("evaluate", help="score this site's model on its held-out cases, once it has ended")
    evaluation.add_argument("kit", type=Path, help="this site's kit")
    add_options(evaluation)


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    require_deployment_extra()
    console = Console(soft_wrap=True, highlight=False)
    return {"keys": _keys, "check": _check, "up": _up, "evaluate": _evaluate}[args.action](args, console)


def _keys(args: argparse.Namespace, console: Console) -> int:
    from nnunet_fedmepd.deployment.certificates import fingerprint
    from nnunet_fedmepd.deployment.site_keys import make_site_keys, read_request

    file = make_site_keys(args.site, args.folder)
    console.print(f"Send {file} to the coordinator; nothing of it is secret. The private keys beside it stay here.")
    console.print(f"Node key: {fingerprint(read_request(file, args.site).node_key)}, to compare by telephone.")
    console.print(f"When the kit comes back, copy its files into {args.folder}.")
    return 0


def _check(args: argparse.Namespace, console: Console) -> int:
    from nnunet_fedmepd.deployment.checks import check_data, check_site_files, check_way
    from nnunet_fedmepd.deployment.starting import write_site_configuration
    from nnunet_fedmepd.nnunet_plugin.site_cases import check_site_cases

    kit = _load(args.kit)
    check_site_files(kit, console.print)
    console.print(f"Site {kit.site}: its keys and certificates belong together.", markup=False)
    dataset = check_data(kit)
    check_site_cases(dataset, min(8, os.cpu_count() or 1))
    modalities = ", ".join(dataset.modalities)
    console.print(
        f"{dataset.name}: {len(dataset.cases)} cases with {modalities} fit the federation file.", markup=False
    )
    write_site_configuration(kit)
    check_way(kit)
    console.print(f"The coordinator answers at {kit.coordinator_host}:{kit.coordinator_port}.", markup=False)
    return 0


def _up(args: argparse.Namespace, console: Console) -> int:
    from nnunet_fedmepd.deployment.checks import check_data, check_site_files, check_way
    from nnunet_fedmepd.deployment.processes import ended_by_signals
    from nnunet_fedmepd.deployment.starting import bring_up_site

    kit = _load(args.kit)
    check_site_files(kit, console.print)
    check_data(kit)
    try:
        check_way(kit)
    except ConfigurationError as error:
        console.print(f"{error} The site tries on.", markup=False)
    with ended_by_signals():
        bring_up_site(kit, console.print)
    return 0


def _evaluate(args: argparse.Namespace, console: Console) -> int:
    kit = _load(args.kit)
    from nnunet_fedmepd.deployment.own_model import open_own_model  # of nnU-Net, which reads its variables once

    evaluate(open_own_model(kit), args, kit.device)
    return 0


def _load(folder: Path) -> SiteKit:
    """Return the kit, and set nnU-Net's variables before nnU-Net is imported."""
    from nnunet_fedmepd.deployment.kit import load_site_kit

    kit = load_site_kit(folder)
    os.environ.update(kit.variables)
    return kit
