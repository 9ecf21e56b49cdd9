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
    add = actions.add_parser("add", help="make kits for sites that were added to the federation file")
    add.add_argument("kits", type=Path, help="folder that `deploy init` made, with its authority")
    add.add_argument("file", help="federation file (TOML) that lists the new sites too")
    renew = actions.add_parser(
        "renew", help="give one site new keys and a new certificate; its old ones are locked out"
    )
    renew.add_argument("kits", type=Path, help="folder that `deploy init` made, with its authority")
    renew.add_argument("site", help="its name in the federation file")
    for signing in (init, add, renew):
        signing.add_argument(
            "--requests", type=Path, metavar="FOLDER", help="of the files that `fedmepd site keys` made"
        )
        signing.add_argument("--days", type=int, default=730, help="for which certificates are valid (%(default)s)")
    revoke = actions.add_parser("revoke", help="lock one site out, at once; all others stay as they are")
    revoke.add_argument("kit", type=Path, help="the coordinator's kit")
    revoke.add_argument("site", help="its name in the federation file")
    up = actions.add_parser("up", help="start the coordinator, or go on with it")
    up.add_argument("kit", type=Path, help="the coordinator's kit")
    status = actions.add_parser("status", help="show sites, rounds, when each was last seen, and traffic")
    status.add_argument("kit", type=Path, help="the coordinator's kit")


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    require_deployment_extra()
    console = Console(soft_wrap=True, highlight=False)
    actions = {"init": _init, "add": _add, "renew": _renew, "revoke": _revoke, "up": _up, "status": _status}
    return actions[args.action](args, console)


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


def _add(args: argparse.Namespace, console: Console) -> int:
    from nnunet_fedmepd.deployment.kit import load_coordinator_kit
    from nnunet_fedmepd.deployment.membership import add_sites
    from nnunet_fedmepd.deployment.starting import write_coordinator_configuration

    added, coordinator = add_sites(args.kits, args.file, args.requests, args.days), args.kits / "coordinator"
    write_coordinator_configuration(load_coordinator_kit(coordinator))
    for site in added:
        console.print(f"{site.keys.site}: {args.kits / 'sites' / site.keys.site}, node key {site.node_fingerprint}")
    console.print("Hand every new site its own kit, and nobody else's. The kits of all other sites stay as they are.")
    _tell_to_start_again(coordinator, "federation.toml and the folder sites", console)
    return 0


def _renew(args: argparse.Namespace, console: Console) -> int:
    from nnunet_fedmepd.deployment.kit import load_coordinator_kit
    from nnunet_fedmepd.deployment.locking_out import lock_out
    from nnunet_fedmepd.deployment.membership import renew_site

    renewed, files = renew_site(args.kits, args.site, args.requests, args.days)
    folder, coordinator = args.kits / "sites" / args.site, args.kits / "coordinator"
    console.print(f"{args.site}: new {', '.join(files)} in {folder}, node key {renewed.node_fingerprint}")
    console.print("Hand them to that site alone: they replace those in its kit, and it is started again.")
    lock_out(load_coordinator_kit(coordinator), console.print)
    console.print(f"What {args.site} had before is refused from now on.", markup=False)
    _tell_to_start_again(coordinator, "the folder sites", console)
    return 0


def _tell_to_start_again(coordinator: Path, changed: str, console: Console) -> None:
    console.print("If the coordinator is up, end it (Ctrl-C) and start it again; a run goes on at the same round:")
    console.print(f"fedmepd deploy up {coordinator}", markup=False)
    console.print(f"If its kit was copied to another machine, copy {changed} of {coordinator} there before.")


def _revoke(args: argparse.Namespace, console: Console) -> int:
    from nnunet_fedmepd.deployment.kit import load_coordinator_kit
    from nnunet_fedmepd.deployment.locking_out import lock_out
    from nnunet_fedmepd.deployment.membership import revoke_site

    kit = load_coordinator_kit(args.kit)
    revoke_site(kit, args.site)
    is_up = lock_out(kit, console.print)
    console.print(
        f"Site {args.site} is locked out: its certificate and its keys are refused from now on.", markup=False
    )
    if is_up:
        console.print("The coordinator is up and knows it; nothing needs to be started again.")
    else:
        console.print("The coordinator is not up on this machine. Where it is up with a copy of this kit, repeat this.")
    console.print(f"A run goes on without it. `fedmepd deploy renew KITS {args.site}` lets it in again, with new keys.")
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
        seen = "revoked" if kit.is_revoked(site) else seen
        traffic = (f"{size / 1e6:.1f}" for size in (contact.bytes_received, contact.bytes_sent))
        table.add_row(site, seen, *traffic, str(contact.refused))
    console.print(table)
    return 0
