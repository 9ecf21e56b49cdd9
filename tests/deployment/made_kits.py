"""Kits of a small federation for tests, on ports that are free."""

from __future__ import annotations

import socket
from pathlib import Path

from nnunet_fedmepd.deployment.init import Place, make_kits
from nnunet_fedmepd.deployment.kit import CoordinatorKit, SiteKit, load_coordinator_kit, load_site_kit

FEDERATION = """
name = "glioma"
modalities = ["T1", "T1ce", "T2", "FLAIR"]
rounds = 2

[[site]]
name = "university"
dataset = 500
lead = true

[[site]]
name = "county"
dataset = 501
"""


def free_port() -> int:
    """Return a port of the loopback address that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_federation(folder: Path) -> Path:
    """Write the federation file."""
    file = folder / "glioma.toml"
    file.write_text(FEDERATION)
    return file


def make(folder: Path, requests: Path | None = None, days: int = 30) -> Path:
    """Make the kits, and return their folder."""
    place = Place("127.0.0.1", free_port(), superlink_port=free_port(), first_site_port=free_port())
    make_kits(write_federation(folder), folder / "kits", place, requests, days)
    for site in (folder / "kits" / "sites").iterdir():
        write_site_toml(site, folder / "nnunet")
    return folder / "kits"


def write_site_toml(site: Path, data: Path, **values: str) -> None:
    """Write what a site says about itself."""
    folders = {name: str(data / name) for name in ("nnunet_raw", "nnunet_preprocessed", "nnunet_results")}
    lines = [f'{name} = "{value}"' for name, value in {**folders, **values}.items()]
    (site / "site.toml").write_text("\n".join(lines))


def coordinator_kit(kits: Path) -> CoordinatorKit:
    """Return the coordinator's kit."""
    return load_coordinator_kit(kits / "coordinator")


def site_kit(kits: Path, name: str) -> SiteKit:
    """Return a site's kit."""
    return load_site_kit(kits / "sites" / name)
