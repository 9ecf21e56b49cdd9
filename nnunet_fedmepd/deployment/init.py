"""Makes the kits of a deployment from a federation file.

OUT/coordinator/       stays with the coordinator
OUT/sites/NAME/        is handed to that site, and to nobody else
OUT/authority/         keys that sign certificates: for new ones later; keep them where no network reaches
"""

from __future__ import annotations

import ipaddress
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_fedmepd.config.loading import load_federation, recipe
from nnunet_fedmepd.deployment.certificates import (
    DEFAULT_DAYS,
    Authority,
    certificate_bytes,
    key_bytes,
    new_authority,
    new_key,
    server_certificate,
    write_private,
)
from nnunet_fedmepd.deployment.site_kits import SiteKits, private_folder, write_toml
from nnunet_fedmepd.errors import ConfigurationError

PORTS_PER_SITE = 2

_COORDINATOR_README = """\
Kit of the coordinator of the federation {name}. It holds private keys: keep it on a machine that nobody else uses.
  fedmepd deploy up .        starts the federation, and goes on with it
  fedmepd deploy status .    sites, rounds, last seen, traffic
Port {port} must be reachable for the sites. The clocks of all machines must be right to seconds (NTP).
"""


@dataclass(frozen=True)
class Place:
    """Where the coordinator is.

    Attributes:
        host: name or address by which sites reach it.
        port: that is published.
        superlink_port: of the engine, on the coordinator's loopback address.
        first_site_port: each site uses two ports of its own loopback address, from here on; no two sites the same, so
            that several can be on one machine.
    """

    host: str
    port: int
    superlink_port: int = 18080
    first_site_port: int = 19080

    @property
    def listen(self) -> str:
        """The address that the coordinator binds: only the loopback address where that is the host."""
        try:
            is_loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            is_loopback = self.host == "localhost"
        return "127.0.0.1" if is_loopback else "0.0.0.0"


def make_kits(
    file: str | Path,
    out: Path,
    place: Place,
    requests: Path | None = None,
    days: int = DEFAULT_DAYS,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Make all kits of a federation; they are there whole, or not at all.

    Args:
        file: federation file, or the name of a recipe.
        out: new folder.
        place: of the coordinator.
        requests: folder of the files that `fedmepd site keys` made at the sites; None makes all keys here.
        days: for which certificates are valid.
        report: told a line about each site.

    Raises:
        ConfigurationError: mistakes in the file, `out` exists, or a request is missing or wrong.
        StateFileError: the folder cannot be written.
    """
    federation = load_federation(file)
    if out.exists():
        raise ConfigurationError(
            f"{out} exists. Were its keys replaced, no site could connect any more; name a new folder, or let `fedmepd "
            "deploy add` make the kits of further sites."
        )
    server, client = (new_authority(f"nnunet-fedmepd {kind} authority") for kind in ("server", "client"))
    kits = SiteKits(federation.name, file_content(file), place.host, place.port, server.certificate, client, days)
    sites = [kits.admit(site.name, requests) for site in federation.site]
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    try:
        _write_authorities(partial / "authority", {"ca": server, "client_ca": client})
        _write_coordinator(partial / "coordinator", kits, place, server)
        for index, site in enumerate(sites):
            site.write_known(partial / "coordinator")
            kits.write_kit(partial / "sites" / site.keys.site, site, place.first_site_port + PORTS_PER_SITE * index)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for site in sites:
        report(f"{site.keys.site}: {out / 'sites' / site.keys.site}, node key {site.node_fingerprint}")


def file_content(file: str | Path) -> bytes:
    """Return the content of a federation file, or of the recipe of that name."""
    return (Path(file) if Path(file).is_file() else recipe(str(file))).read_bytes()


def _write_authorities(folder: Path, authorities: Mapping[str, Authority]) -> None:
    """Write the keys that sign certificates."""
    private_folder(folder)
    for name, authority in authorities.items():
        write_private(folder / f"{name}.key", key_bytes(authority.key))
        (folder / f"{name}.crt").write_bytes(certificate_bytes(authority.certificate))


def _write_coordinator(folder: Path, kits: SiteKits, place: Place, server: Authority) -> None:
    """Write the coordinator's kit, without what it knows of sites."""
    private_folder(folder)
    where = {"host": place.host, "port": place.port, "listen": place.listen}
    write_toml(folder / "kit.toml", {"role": "coordinator", **where, "superlink_port": place.superlink_port})
    kits.write_common(folder)
    key = new_key()
    write_private(folder / "server.key", key_bytes(key))
    certificate = server_certificate(server, key.public_key(), place.host, kits.days)
    (folder / "server.crt").write_bytes(certificate_bytes(certificate))
    (folder / "README.txt").write_text(_COORDINATOR_README.format(name=kits.name, port=place.port))
    (folder / "sites").mkdir()
