"""`fedmepd check`: what a federation file says, whether the data fit it, and what would leave each site."""

from __future__ import annotations

import argparse
import os

from rich.console import Console
from rich.table import Table

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import load_federation
from nnunet_fedmepd.errors import ConfigurationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", help="federation file (TOML), or the name of a shipped recipe")
    parser.add_argument("--what-leaves", action="store_true", help="list everything that leaves a site")


def run(args: argparse.Namespace) -> int:
    """Print the federation, check its datasets where nnUNet_raw is set, and list what leaves where asked."""
    federation, console = load_federation(args.file), Console(soft_wrap=True, highlight=False)
    console.print(site_table(federation))
    for line in method_lines(federation):
        console.print(line, markup=False)
    if args.what_leaves:
        print_what_leaves(federation, console)
    if "nnUNet_raw" not in os.environ or "nnUNet_preprocessed" not in os.environ:
        console.print("nnUNet_raw or nnUNet_preprocessed is not set: the sites' datasets were not checked.")
        return 0
    check_datasets(federation)
    console.print(f"The datasets of all {len(federation.site)} sites are there and fit the file.")
    return 0


def site_table(federation: Federation) -> Table:
    """Return one row per site."""
    table = Table(title=federation.name)
    for column in ("site", "dataset", "modalities", "role", "absent"):
        table.add_column(column, no_wrap=column != "absent")
    for site in federation.site:
        owned = "+".join(site.modalities) if site.modalities else "as in dataset.json"
        role = {"lead": "lead", "site": "site", "none": "does not train"}[federation.method.lead_role]
        absent = ", ".join(map(str, site.absent_rounds))
        table.add_row(site.name, str(site.dataset), owned, role if site.lead else "site", absent)
    return table


def method_lines(federation: Federation) -> list[str]:
    """Return what is done, in a few lines."""
    method, planning = federation.method, federation.planning
    switches = ", ".join(f"{key} = {value}" for key, value in method.model_dump().items() if key != "personalization")
    return [
        f"{federation.rounds} rounds of {federation.epochs_per_round} local epochs; seed {federation.seed}",
        f"planned by {planning.planner} for {planning.gpu_memory_gb:g} GB, configuration {planning.configuration}",
        f"method: {switches}",
        f"personalization: {federation.personalization}",
    ]


def check_datasets(federation: Federation) -> None:
    """Check the datasets of all sites.

    Raises:
        ConfigurationError: listing what is wrong at every site.
    """
    from nnunet_fedmepd.nnunet_plugin.joint_planning import federation_vocabulary
    from nnunet_fedmepd.nnunet_plugin.registration import register
    from nnunet_fedmepd.runtime.planning import open_sites

    register()
    open_sites(federation, federation_vocabulary(federation.modalities, federation.aliases))


def print_what_leaves(federation: Federation, console: Console) -> None:
    """Print the declaration and, where the federation is planned, every array with its size."""
    from nnunet_fedmepd.runtime.local import participants
    from nnunet_fedmepd.runtime.manifest import declared, expected_rows
    from nnunet_fedmepd.runtime.preparation import prepare

    for line in declared(federation):
        console.print(line, markup=False)
    if not federation.method.exchange:
        return
    try:
        prepared = prepare(federation)
    except ConfigurationError:
        console.print("The arrays and their sizes are listed once the federation is planned (`fedmepd plan`).")
        return
    for participant in participants(prepared.federation):
        rows = expected_rows(participant, prepared.model, federation)
        table = Table(title=f"{participant.name}: {sum(row.n_bytes for row in rows) / 1e6:.2f} MB a round at most")
        for column in ("array", "type", "shape", "bytes"):
            table.add_column(column, justify="right" if column == "bytes" else "left", no_wrap=True)
        for row in rows:
            table.add_row(row.name, row.dtype, "x".join(map(str, row.shape)), str(row.n_bytes))
        console.print(table)
