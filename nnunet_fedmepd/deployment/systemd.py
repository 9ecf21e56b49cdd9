"""Units for systemd: a kit's processes start with the machine, and start again after a failure."""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

# The engine takes a node that was killed for alive until its heartbeats are missed, and refuses a second one.
RESTART_SECONDS = 20

_UNIT = """\
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target time-sync.target
StartLimitIntervalSec=0

[Service]
ExecStart={command}
WorkingDirectory={folder}
User={user}
{environment}Restart=on-failure
RestartSec={restart_seconds}
KillMode=control-group
TimeoutStopSec=90
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes

[Install]
WantedBy=multi-user.target
"""


def unit(description: str, command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> str:
    """Return a unit.

    Args:
        description: one line.
        command: absolute program and its arguments.
        folder: of the kit.
        variables: environment variables.
    """
    environment = "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in variables.items())
    return _UNIT.format(
        description=description,
        command=" ".join(_quoted(word) for word in command),
        folder=str(folder).replace("%", "%%"),
        user=getpass.getuser(),
        environment=environment,
        restart_seconds=RESTART_SECONDS,
    )


def _quoted(word: str) -> str:
    """Return a word as systemd reads it, which takes `%` and `$` for its own."""
    return shlex.quote(word).replace("%", "%%").replace("$", "$$")
