"""Makes the kits of a deployment from a federation file.

OUT/coordinator/       stays with the coordinator
OUT/sites/NAME/        is handed to that site, and to nobody else
OUT/authority/         keys that sign certificates: for new ones later; keep them where no network reaches
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import load_federation, recipe
from nnunet_fedmepd.deployment.certificates import (
    DEFAULT_DAYS,
    Authority,
    certificate_bytes,
    client_certificate,
    fingerprint,
    key_bytes,
    new_authority,
    new_key,
    server_certificate,
    write_private,
)
from nnunet_fedmepd.deployment.site_keys import SiteKeys, SiteRequest, new_site_keys, read_request
from nnunet_fedmepd.errors import ConfigurationError

# X.520 has no room for more in a certificate's name.
_LONGEST_NAME = 64

_SITE_TOML = """\
# What only this site knows. Nothing else in this folder needs to be edited.
nnunet_raw = ""          # nnU-Net's folders; empty: those of its environment variables
nnunet_preprocessed = ""
nnunet_results = ""
dataset = ""             # number or full name of the site's nnU-Net dataset; empty: that of federation.toml
device = ""              # such as "cuda:0" or "cpu"; empty: the first GPU, else the CPU
via = ""                 # host:port of a tunnel to the coordinator, where the network lets nothing out directly
"""

_COORDINATOR_README = """\
Kit of the coordinator of the federation {name}. It holds private keys: keep it on a machine that nobody else uses.
  fedmepd deploy up .        starts the federation, and goes on with it
  fedmepd deploy status .    sites, rounds, last seen, traffic
Port {port} must be reachable for the sites. The clocks of all machines must be right to seconds (NTP).
"""

_SITE_README = """\
Kit of site {site} of the federation {name}. With its private keys it is this site: hand it to nobody else.
Write the folders of the site's data into site.toml, then:
  fedmepd site check .    keys, certificates, data, the way to the coordinator
  fedmepd site up .       starts the site, and goes on with it
One outgoing connection must be allowed: to {host}, port {port}. The clock must be right to seconds (NTP).
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
    content = (Path(file) if Path(file).is_file() else recipe(str(file))).read_bytes()
    _check_names(federation)
    if out.exists():
        raise ConfigurationError(
            f"{out} exists. Were its keys replaced, no site could connect any more; name a new folder."
        )
    sites = {site.name: _keys(site.name, requests) for site in federation.site}
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    try:
        maker = _Maker(partial, federation.name, content, place, days)
        maker.write_authorities()
        maker.write_coordinator(list(sites.values()))
        for index, keys in enumerate(sites.values()):
            maker.write_site(index, keys)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for name, keys in sites.items():
        report(f"{name}: {out / 'sites' / name}, node key {fingerprint(_request(keys).node_key)}")


class _Maker:
    """Writes the kits of one federation.

    Args:
        out: folder that they are made in.
        name: of the federation.
        content: of the federation file.
        place: of the coordinator.
        days: for which certificates are valid.
    """

    def __init__(self, out: Path, name: str, content: bytes, place: Place, days: int) -> None:
        self.out, self.name, self.content, self.place, self.days = out, name, content, place, days
        self.server = new_authority("nnunet-fedmepd server authority")
        self.client = new_authority("nnunet-fedmepd client authority")

    def write_authorities(self) -> None:
        """Write the keys that sign certificates."""
        folder = _private_folder(self.out / "authority")
        for name, authority in {"ca": self.server, "client_ca": self.client}.items():
            write_private(folder / f"{name}.key", key_bytes(authority.key))
            _write_certificate(folder / f"{name}.crt", authority)

    def write_coordinator(self, sites: list[SiteKeys | SiteRequest]) -> None:
        """Write the coordinator's kit."""
        folder, place = _private_folder(self.out / "coordinator"), self.place
        where = {"host": place.host, "port": place.port, "listen": place.listen}
        _write_toml(folder / "kit.toml", {"role": "coordinator", **where, "superlink_port": place.superlink_port})
        self._write_common(folder)
        _write_certificate(folder / "client_ca.crt", self.client)
        key = new_key()
        write_private(folder / "server.key", key_bytes(key))
        certificate = server_certificate(self.server, key.public_key(), place.host, self.days)
        (folder / "server.crt").write_bytes(certificate_bytes(certificate))
        (folder / "README.txt").write_text(_COORDINATOR_README.format(name=self.name, port=place.port))
        (folder / "sites").mkdir()
        for keys in sites:
            (folder / "sites" / f"{keys.site}.pub").write_bytes(_request(keys).node_key)

    def write_site(self, index: int, keys: SiteKeys | SiteRequest) -> None:
        """Write a site's kit: with its private keys if they were made here."""
        folder, place, request = _private_folder(self.out / "sites" / keys.site), self.place, _request(keys)
        port = place.first_site_port + 2 * index
        where = {"coordinator_host": place.host, "coordinator_port": place.port}
        ports = {"sidecar_port": port, "supernode_port": port + 1}
        _write_toml(folder / "kit.toml", {"role": "site", "site": keys.site, **where, **ports})
        self._write_common(folder)
        _write_certificate(folder / "client_ca.crt", self.client)
        certificate = client_certificate(self.client, request.connection_key, keys.site, self.days)
        (folder / "client.crt").write_bytes(certificate_bytes(certificate))
        (folder / "supernode.pub").write_bytes(request.node_key)
        (folder / "site.toml").write_text(_SITE_TOML)
        values = {"site": keys.site, "name": self.name, "host": place.host, "port": place.port}
        (folder / "README.txt").write_text(_SITE_README.format(**values))
        if isinstance(keys, SiteKeys):
            keys.write(folder)

    def _write_common(self, folder: Path) -> None:
        (folder / "federation.toml").write_bytes(self.content)
        _write_certificate(folder / "ca.crt", self.server)


def _check_names(federation: Federation) -> None:
    if long := [site.name for site in federation.site if len(site.name) > _LONGEST_NAME]:
        raise ConfigurationError(
            f"site {long[0]!r}: a certificate has no room for a name of more than {_LONGEST_NAME} characters."
        )


def _keys(site: str, requests: Path | None) -> SiteKeys | SiteRequest:
    return new_site_keys(site) if requests is None else read_request(requests / f"{site}.request", site)


def _request(keys: SiteKeys | SiteRequest) -> SiteRequest:
    return keys.request if isinstance(keys, SiteKeys) else keys


def _private_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True)
    return folder


def _write_certificate(file: Path, authority: Authority) -> None:
    file.write_bytes(certificate_bytes(authority.certificate))


def _write_toml(file: Path, values: Mapping[str, object]) -> None:
    # JSON's strings and numbers are TOML's.
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
