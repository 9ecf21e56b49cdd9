"""Runs nnU-Net's commands with this package registered, for places where Python processes no start-up files.

That is the case for `pip install --target`, for a source tree on PYTHONPATH and for `python -S`. There, instead of
`nnUNetv2_train 500 3d_fullres 0 -tr FedMEPDTrainer`:

    python -m nnunet_fedmepd train 500 3d_fullres 0 -tr FedMEPDTrainer

The commands of `fedmepd` (`python -m nnunet_fedmepd doctor`) run in the same way.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from nnunet_fedmepd import cli
from nnunet_fedmepd.nnunet_plugin.registration import register

if sys.version_info >= (3, 12):
    import setuptools  # noqa: F401  # brings back distutils, which nnU-Net imports; usually a start-up file does this

# At import on purpose: a spawned worker imports this module as its main module, and has to know our classes, too.
register()

PROG = "python -m nnunet_fedmepd"
_PREFIX = "nnUNetv2_"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named first: one of nnU-Net's without its prefix, or one of `fedmepd`'s."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = find_stock_command(arguments[0]) if arguments else None
    if command is None:
        return cli.main(arguments, prog=PROG, epilog=f"commands of nnU-Net: {', '.join(stock_command_names())}")
    sys.argv = [f"{PROG} {arguments[0]}", *arguments[1:]]
    return command.load()() or 0


def find_stock_command(name: str) -> EntryPoint | None:
    """The entry point of nnU-Net's command `nnUNetv2_NAME`, or None where there is none."""
    return next(iter(entry_points(group="console_scripts", name=_PREFIX + name)), None)


def stock_command_names() -> list[str]:
    """Names of nnU-Net's commands without their prefix."""
    scripts = entry_points(group="console_scripts")
    return sorted({script.name[len(_PREFIX) :] for script in scripts if script.name.startswith(_PREFIX)})


if __name__ == "__main__":
    sys.exit(main())
