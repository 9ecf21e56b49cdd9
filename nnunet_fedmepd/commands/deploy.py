"""`fedmepd deploy`: the coordinator's side of a federation over a network."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nnunet_fedmepd.commands.deployment_extra import require_deployment_extra
from nnunet_fedmepd.commands.status import duration, headline
from nnunet_fedmepd.commands.status import site_table as round_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    init = actions.add_parser("init", help="make the coordinator's kit and one kit for every site")
    init.add_argument("file", help="federation file (TOML), or the name of a shipped recipe")
    init.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder for the kits")
    init.add_argument("--host", required=True, help="name or address by which sites reach the coordinator")
    init.add_argument("--port", type=int, default=8443, help="the one port that is published (%(default)s)")
    init.add_argument("--requests", type=Path, metavar="FOLDER", help="of the files that `fedmepd site keys` made")
    init.add_argument("--days", type=int, default=730, help="for which certificates are valid (%(default)s)")
    up = actions.add_parser("up", help="start the coordinator, or go on with it")
    up.add_argument("kit", type=Path, help="the coordinator's kit")
    status = actions.add_parser("status", help="show sites, rounds, when each was last seen, and traffic")
    status.add_argument("kit", type=Path, help="the coordinator's kit")


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    require_deployment_extra()
    console = Console(soft_wrap=True, highlight=False)
    return {"init": _init, "up": _up, "status": _status}[args.action](args, console)


def _init(args: argparse.Namespace, console: Console) -> int:
    from nnunet_fedmepd.deployment.init import Place, make_kits
    from nnunet_fedmepd.deployment.kit import load_coordinator_kit
    from nnunet_fedmepd.deployment.starting import write_coordinator_configuration

    make_kits(args.file, args.out, Place(args.host, args.port), args.requests, args.days, console.print)
    kit = load_coordinator_kit(args.out / "coordinator")
    write_coordinator_configuration(kit)
    console.print(f"Keep {args.out / 'authority'} where no network reaches it: it makes new certificates.")
    console.print("Hand every site its own kit, and nobody else's. Then, at the coordinator and at each site:")
    console.print(f"fedmepd deploy up {args.out / 'coordinator'}\nfedmepd site up KIT", markup=False)
    return 0


def _up(args: argparse.Namespace, console: Console) -> int:
    from nnunet_fedmepd.deployment.checks import check_coordinator_files
    from nnunet_fedmepd.deployment.flower.programs import APP
    from nnunet_fedmepd.deployment.kit import load_coordinator_kit
    from nnunet_fedmepd.deployment.processes import ended_by_signals
    from nnunet_fedmepd.deployment.starting import bring_up_coordinator

    kit = load_coordinator_kit(args.kit)
    check_coordinator_files(kit, console.print)
    with ended_by_signals():
        bring_up_coordinator(kit, APP, console.print)
    return 0


def _status(args: argparse.Namespace, console: Console) -> int:
    from nnunet_fedmepd.deployment.kit import load_coordinator_kit
    from nnunet_fedmepd.deployment.status import contacts
    from nnunet_fedmepd.runtime.run_folder import RunFolder

    kit = load_coordinator_kit(args.kit)
    if (kit.run_folder / "status.json").is_file():
        status, journal = RunFolder(kit.run_folder).status(), RunFolder(kit.run_folder).journal()
        console.print(headline(status, journal, time.time()))
        console.print(round_table(status, journal))
    else:
        console.print(f"{kit.federation.name}: no round has been started yet.")
    table, now = Table(), time.time()
    for column in ("site", "last seen", "MB received", "MB sent", "refused"):
        table.add_column(column, justify="left" if column == "site" else "right", no_wrap=True)
    for site, contact in contacts(kit).items():
        seen = "never" if contact.last_seen is None else f"{duration(now - contact.last_seen)} ago"
        traffic = (f"{size / 1e6:.1f}" for size in (contact.bytes_received, contact.bytes_sent))
        table.add_row(site, seen, *traffic, str(contact.refused))
    console.print(table)
    return 0
