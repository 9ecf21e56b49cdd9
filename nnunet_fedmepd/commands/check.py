"""`fedmepd check`: what a federation file says, whether the data fit it, and what would leave each site."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from nnunet_fedmepd.commands.privacy_lines import planned_lines
from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import load_federation
from nnunet_fedmepd.errors import ConfigurationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Label maps are read, and every NIfTI file is compared with its header and those of its case: is it whole, of "
        "one size and spacing? Voxels of NIfTI images are read by `fedmepd plan` only, test cases by neither."
    )
    parser.add_argument("file", help="federation file (TOML), or the name of a shipped recipe")
    parser.add_argument("--what-leaves", action="store_true", help="list everything that leaves a site")


def run(args: argparse.Namespace) -> int:
    """Print the federation, check it and, where nnUNet_raw is set, its datasets; list what leaves where asked."""
    federation, console = load_federation(args.file), Console(soft_wrap=True, highlight=False)
    console.print(site_table(federation))
    for line in [*method_lines(federation), *planned_lines(federation)]:
        console.print(line, markup=False)
    if args.what_leaves:
        print_declaration(federation, console)
    if unset := [name for name in ("nnUNet_raw", "nnUNet_preprocessed") if not os.environ.get(name)]:
        check_names(federation)
        console.print(f"{' and '.join(unset)} not set: the sites' datasets were not checked.")
        return 0
    check_datasets(federation, console)
    console.print(f"The datasets of all {len(federation.site)} sites are there and fit the file.")
    if args.what_leaves and federation.method.exchange:
        print_arrays(federation, console)
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
    planning, epochs = federation.planning, federation.epochs_per_round
    return [
        f"{federation.rounds} rounds of {epochs} local epoch{'' if epochs == 1 else 's'}; seed {federation.seed}",
        f"planned by {planning.planner} for {planning.gpu_memory_gb:g} GB, configuration {planning.configuration}",
        f"method: {_switches(federation.method.model_dump(exclude={'personalization', 'privacy'}))}",
        f"personalization: {_switches(asdict(federation.personalization))}",
        f"training: {_switches(federation.training) or 'as planned'}",
    ]


def _switches(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.items())


def check_names(federation: Federation) -> None:
    """Check the names of planner and configuration.

    Raises:
        ConfigurationError: no such planner, or it never plans such a configuration.
    """
    from nnunet_fedmepd.nnunet_plugin.planner import check_planning
    from nnunet_fedmepd.nnunet_plugin.registration import register

    register()
    check_planning(federation.planning.planner, federation.planning.configuration)


def check_datasets(federation: Federation, console: Console) -> None:
    """Check planner, configuration, and the datasets of all sites.

    Raises:
        ConfigurationError: listing what is wrong at every site.
    """
    from nnunet_fedmepd.runtime.planning import check_sites

    check_sites(federation, console, min(8, os.cpu_count() or 1))


def print_declaration(federation: Federation, console: Console) -> None:
    """Print, phase by phase, what leaves a site and what never does."""
    from nnunet_fedmepd.runtime.manifest import declared

    for line in declared(federation):
        console.print(line, markup=False)


def print_arrays(federation: Federation, console: Console) -> None:
    """Print every array that leaves a site in a round, with its size, or why these are not known yet."""
    from nnunet_fedmepd.runtime.local import participants
    from nnunet_fedmepd.runtime.manifest import expected_rows
    from nnunet_fedmepd.runtime.preparation import prepare

    try:
        prepared = prepare(federation)
    except ConfigurationError as error:
        console.print(f"The arrays that leave a site are listed once there are plans. {error}", markup=False)
        return
    for participant in participants(prepared.federation):
        rows = expected_rows(participant, prepared.model, federation)
        console.print(f"{participant.name}: {sum(row.n_bytes for row in rows) / 1e6:.2f} MB a round at most")
        for row in rows:
            shape = "x".join(map(str, row.shape)) or "scalar"
            console.print(f"  {row.n_bytes:>10} bytes  {row.dtype:<8} {shape:<16} {row.name}", markup=False)
