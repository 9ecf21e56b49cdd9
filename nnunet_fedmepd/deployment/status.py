"""How a deployment stands: when every site was last heard of, and how much it received and sent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nnunet_fedmepd.deployment.kit import CoordinatorKit
from nnunet_fedmepd.deployment.nginx import ACCESS_LOG

_LINE = re.compile(r"(?P<time>[\d.]+) CN=(?P<site>\S+) (?P<path>\S+) (?P<status>\d{3}) (?P<received>\d+) (?P<sent>\d+)")
_ACCEPTED = "200"


@dataclass
class SiteContact:
    """A site as the coordinator's proxy saw it.

    Attributes:
        last_seen: Unix time of its last accepted request; None: never.
        bytes_received: from it.
        bytes_sent: to it.
        refused: requests with its certificate that were not accepted.
    """

    last_seen: float | None = None
    bytes_received: int = 0
    bytes_sent: int = 0
    refused: int = 0


def contacts(kit: CoordinatorKit) -> dict[str, SiteContact]:
    """Return what the proxy's log says about every site of the federation."""
    found = {site.name: SiteContact() for site in kit.federation.site}
    file = kit.folder / ACCESS_LOG
    if file.is_file():
        with file.open(encoding="utf-8", errors="replace") as lines:
            _count(found, lines)
    return found


def _count(found: dict[str, SiteContact], lines: Iterable[str]) -> None:
    for line in lines:
        match = _LINE.match(line)
        if match is None or match["site"] not in found:
            continue
        contact = found[match["site"]]
        contact.bytes_received += int(match["received"])
        contact.bytes_sent += int(match["sent"])
        if match["status"] == _ACCEPTED:
            contact.last_seen = float(match["time"])
        else:
            contact.refused += 1
