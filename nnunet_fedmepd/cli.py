"""The command `fedmepd`: finds a command by name and imports nothing but that command."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from nnunet_fedmepd import __version__
from nnunet_fedmepd.errors import FedMEPDError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130  # the shells' 128 + SIGINT


class Command(NamedTuple):
    """Where a command lives and what `fedmepd --help` says about it."""

    module: str
    help: str


COMMANDS = {
    "doctor": Command("nnunet_fedmepd.commands.doctor", "check the installation, the folders and the machine"),
    "demo": Command("nnunet_fedmepd.commands.demo", "make data, train and evaluate: the whole job in one command"),
    "plan": Command("nnunet_fedmepd.commands.plan", "plan all sites of a federation together, and preprocess"),
    "check": Command("nnunet_fedmepd.commands.check", "check a federation file, its data, and what would leave a site"),
    "run": Command("nnunet_fedmepd.commands.run", "run a federation on this machine, or go on with it"),
    "status": Command("nnunet_fedmepd.commands.status", "show how far a federated run is"),
    "evaluate": Command("nnunet_fedmepd.commands.evaluate", "score every site's model on its held-out cases"),
    "drop-small": Command("nnunet_fedmepd.commands.drop_small", "remove components too small to believe"),
    "compare": Command("nnunet_fedmepd.commands.compare", "run several methods on the same sites, and compare them"),
    "report": Command("nnunet_fedmepd.commands.report", "write one page about a federated run, for any browser"),
    "deploy": Command("nnunet_fedmepd.commands.deploy", "run a federation over a network: kits, the coordinator"),
    "site": Command("nnunet_fedmepd.commands.site", "take part, as a hospital, in a federation over a network"),
    "demo-data": Command("nnunet_fedmepd.commands.demo_data", "make multi-site brain tumour data to try things on"),
    "convert": Command("nnunet_fedmepd.commands.convert", "convert a BraTS folder into one nnU-Net dataset per site"),
    "convert-back": Command("nnunet_fedmepd.commands.convert_back", "convert predictions back to BraTS labels"),
    "fill-missing": Command("nnunet_fedmepd.commands.fill_missing", "write blank channels for scans a case lacks"),
}


def main(argv: Sequence[str] | None = None, prog: str = "fedmepd", epilog: str | None = None) -> int:
    """Run one command and return its exit code: 2 for a deliberate error, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _build_parser(prog, epilog, chosen=_first_word(arguments)).parse_args(arguments)
        return importlib.import_module(COMMANDS[args.command].module).run(args)
    except FedMEPDError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _first_word(arguments: Sequence[str]) -> str | None:
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def _build_parser(prog: str, epilog: str | None, chosen: str | None) -> argparse.ArgumentParser:
    """All commands by name, but only the chosen one with its arguments, since these need its module."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Federated segmentation with nnU-Net across sites whose modalities differ (FedMEPD).",
        epilog=epilog,
    )
    parser.add_argument("--version", action="version", version=f"nnunet-fedmepd {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help, description=f"fedmepd {name}: {command.help}")
        if name == chosen:
            importlib.import_module(command.module).add_arguments(subparser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
