"""What a site gets, its kit, and what the coordinator's kit holds of that site."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from nnunet_fedmepd.deployment.certificates import (
    Authority,
    certificate_bytes,
    client_certificate,
    fingerprint,
)
from nnunet_fedmepd.deployment.site_keys import SiteKeys, SiteRequest, new_site_keys, read_request
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.federation.storage import write_atomically

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

_SITE_README = """\
Kit of site {site} of the federation {name}. With its private keys it is this site: hand it to nobody else.
Write the folders of the site's data into site.toml, then:
  fedmepd site check .    keys, certificates, data, the way to the coordinator
  fedmepd site up .       starts the site, and goes on with it
One outgoing connection must be allowed: to {host}, port {port}. The clock must be right to seconds (NTP).
"""


@dataclass(frozen=True)
class Admitted:
    """A site's keys, private ones if they were made here, and the certificate that was signed for them."""

    keys: SiteKeys | SiteRequest
    certificate: x509.Certificate

    @property
    def request(self) -> SiteRequest:
        """What the coordinator may know of the keys."""
        return self.keys.request if isinstance(self.keys, SiteKeys) else self.keys

    @property
    def node_fingerprint(self) -> str:
        """By this two people compare the node's key by telephone."""
        return fingerprint(self.request.node_key)

    def write_access(self, folder: Path) -> list[str]:
        """Write a site's keys and certificate into its kit, and return the names of the files.

        Raises:
            StateFileError: the folder cannot be written.
        """
        write_atomically(folder / "client.crt", certificate_bytes(self.certificate))
        if isinstance(self.keys, SiteKeys):
            self.keys.write(folder)
            return ["client.crt", "client.key", "supernode.key", "supernode.pub"]
        write_atomically(folder / "supernode.pub", self.request.node_key)
        return ["client.crt", "supernode.pub"]

    def write_known(self, coordinator: Path) -> None:
        """Write into the coordinator's kit by what it knows the site; only that lets the site in.

        Raises:
            StateFileError: the folder cannot be written.
        """
        write_atomically(coordinator / "sites" / f"{self.keys.site}.pub", self.request.node_key)
        write_atomically(coordinator / "sites" / f"{self.keys.site}.crt", certificate_bytes(self.certificate))


@dataclass(frozen=True)
class SiteKits:
    """Makes the kits of a federation's sites.

    Attributes:
        name: of the federation.
        content: of the federation file.
        host: name or address of the coordinator.
        port: that it publishes.
        server: certificate by whose authority sites know the coordinator.
        client: authority that signs sites' certificates.
        days: for which those are valid.
    """

    name: str
    content: bytes
    host: str
    port: int
    server: x509.Certificate
    client: Authority
    days: int

    def admit(self, site: str, requests: Path | None) -> Admitted:
        """Make a site's keys, or take what it made itself, and sign a certificate.

        Args:
            site: its name.
            requests: folder of the files that `fedmepd site keys` made at the sites; None makes the keys here.

        Raises:
            ConfigurationError: the request is missing or wrong, or the name is too long.
        """
        if len(site) > _LONGEST_NAME:
            raise ConfigurationError(
                f"site {site!r}: a certificate has no room for a name of more than {_LONGEST_NAME} characters."
            )
        keys = new_site_keys(site) if requests is None else read_request(requests / f"{site}.request", site)
        key = keys.connection.public_key() if isinstance(keys, SiteKeys) else keys.connection_key
        return Admitted(keys, client_certificate(self.client, key, site, self.days))

    def write_kit(self, folder: Path, admitted: Admitted, first_port: int) -> None:
        """Write a site's kit.

        Args:
            folder: new.
            admitted: the site.
            first_port: of the two that it uses on its own loopback address.

        Raises:
            StateFileError: the folder cannot be written.
        """
        site = admitted.keys.site
        private_folder(folder)
        where = {"coordinator_host": self.host, "coordinator_port": self.port}
        ports = {"sidecar_port": first_port, "supernode_port": first_port + 1}
        write_toml(folder / "kit.toml", {"role": "site", "site": site, **where, **ports})
        self.write_common(folder)
        (folder / "site.toml").write_text(_SITE_TOML)
        (folder / "README.txt").write_text(
            _SITE_README.format(site=site, name=self.name, host=self.host, port=self.port)
        )
        admitted.write_access(folder)

    def write_common(self, folder: Path) -> None:
        """Write what is in every kit, also the coordinator's."""
        (folder / "federation.toml").write_bytes(self.content)
        (folder / "ca.crt").write_bytes(certificate_bytes(self.server))
        (folder / "client_ca.crt").write_bytes(certificate_bytes(self.client.certificate))


def private_folder(folder: Path) -> None:
    """Make a folder that nobody but its owner can look into."""
    folder.mkdir(mode=0o700, parents=True)


def write_toml(file: Path, values: Mapping[str, object]) -> None:
    """Write a TOML file of strings and numbers."""
    # JSON's strings and numbers are TOML's.
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
