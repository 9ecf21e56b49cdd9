"""What a site checks before it joins: its own keys and certificates, its data, the way to the coordinator."""

from __future__ import annotations

import datetime
import email.utils
import http.client
import socket
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.x509 import Certificate

from nnunet_fedmepd.deployment.certificates import (
    COORDINATOR,
    PRIVATE_MODE,
    common_name,
    load_certificate,
    load_private_key,
    public_node_key_bytes,
)
from nnunet_fedmepd.deployment.kit import CoordinatorKit, SiteKit
from nnunet_fedmepd.errors import ConfigurationError

if TYPE_CHECKING:
    from nnunet_fedmepd.nnunet_plugin.raw_dataset import RawDataset

SITE_FILES = (
    "federation.toml",
    "ca.crt",
    "client_ca.crt",
    "client.crt",
    "client.key",
    "supernode.key",
    "supernode.pub",
)
COORDINATOR_FILES = ("federation.toml", "ca.crt", "client_ca.crt", "server.crt", "server.key")

# What the engine allows between the clocks of a node and of the coordinator.
SECONDS_AHEAD, SECONDS_BEHIND = 5, 300
_TIMEOUT_SECONDS = 20.0
_WARNING_DAYS = 30
_RENEWED_BY = {
    "client": "`fedmepd deploy renew` at the coordinator makes a new one",
    "server": "`fedmepd deploy init` makes new kits",
}
# Nodes post to it. Whoever gets it is told so, by a proxy that has accepted the certificate before.
_PROBE = "/v1/fleet/pull-messages"


def check_coordinator_files(kit: CoordinatorKit, warn: Callable[[str], None]) -> None:
    """Check the coordinator's keys and certificates.

    Raises:
        ConfigurationError: one is missing, expired, readable by others, or does not belong to the others.
    """
    _check_present(kit.folder, [*COORDINATOR_FILES, *(f"sites/{site.name}.pub" for site in kit.federation.site)])
    _check_pair(kit.folder, "server", "ca.crt", warn)
    for site in kit.federation.site:
        if kit.is_revoked(site.name):
            warn(f"Site {site.name} is revoked: it is not let in.")
            continue
        left = _time_left(load_certificate(kit.certificate(site.name)))
        if left.days < _WARNING_DAYS:
            warn(f"The certificate of site {site.name} has {max(0, left.days)} days left; {_RENEWED_BY['client']}.")


def check_site_files(kit: SiteKit, warn: Callable[[str], None]) -> None:
    """Check a site's keys and certificates.

    Raises:
        ConfigurationError: one is missing, expired, readable by others, of another site, or does not belong to the
            others.
    """
    _check_present(kit.folder, SITE_FILES)
    _check_pair(kit.folder, "client", "client_ca.crt", warn)
    named = common_name(load_certificate(kit.folder / "client.crt").subject)
    if named != kit.site:
        raise ConfigurationError(
            f"{kit.folder / 'client.crt'} is of site {named!r}, but this is the kit of site {kit.site!r}; use the kit "
            "as it was handed out."
        )
    _check_mode(kit.folder / "supernode.key")
    public = public_node_key_bytes(load_private_key(kit.folder / "supernode.key").public_key())
    if public.split()[:2] != (kit.folder / "supernode.pub").read_bytes().split()[:2]:
        raise ConfigurationError(
            f"{kit.folder / 'supernode.key'} does not belong to supernode.pub, which the coordinator knows; use "
            "the keys that the request was made with."
        )


def check_data(kit: SiteKit) -> RawDataset:
    """Return the site's dataset if it is what the federation file says; nnU-Net's variables must be set.

    Raises:
        ConfigurationError, DatasetError: what is wrong with it.
    """
    from nnunet_fedmepd.nnunet_plugin.registration import register
    from nnunet_fedmepd.runtime.planning import open_site_dataset

    register()
    federation = kit.own_federation
    return open_site_dataset(federation.site_named(kit.site), federation.vocabulary)


def check_way(kit: SiteKit) -> None:
    """Connect to the coordinator as the site's proxy does; nothing is sent but a question that needs no answer.

    Raises:
        ConfigurationError: it is not there, it is not the coordinator of this kit, it does not accept the site's
            certificate, or the clocks differ too much.
    """
    host, port = _address(kit)
    try:
        status, date = _probe(kit, host, port)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{host}:{port} is not the coordinator of this kit, or something between looks into the connection: "
            f"{error.reason or error}. Let the firewall pass it on as it is."
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"The coordinator cannot be reached at {host}:{port}: {error}. Is it up, and does the site's firewall let "
            "this one connection out? Where only a tunnel leads out, name it under `via` in site.toml."
        ) from None
    if status != http.client.METHOD_NOT_ALLOWED:
        raise ConfigurationError(
            f"The coordinator at {host}:{port} does not accept this site's certificate (it answered {status}). Is it "
            "expired or revoked, or were new keys or kits made since?"
        )
    _check_clock(date)


def _address(kit: SiteKit) -> tuple[str, int]:
    host, _, port = (kit.via or f"{kit.coordinator_host}:{kit.coordinator_port}").rpartition(":")
    return host.strip("[]"), int(port)


def _probe(kit: SiteKit, host: str, port: int) -> tuple[int, str | None]:
    context = ssl.create_default_context(cafile=str(kit.folder / "ca.crt"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(kit.folder / "client.crt", kit.folder / "client.key")
    with (
        socket.create_connection((host, port), _TIMEOUT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=COORDINATOR) as secured,
    ):
        connection = http.client.HTTPConnection(COORDINATOR)
        connection.sock = secured
        connection.request("GET", _PROBE)
        response = connection.getresponse()
        return response.status, response.getheader("Date")


def _check_clock(date: str | None) -> None:
    if date is None:
        return
    ahead = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    if not -SECONDS_BEHIND < ahead < SECONDS_AHEAD:
        relation = "ahead of" if ahead > 0 else "behind"
        raise ConfigurationError(
            f"This machine's clock is {abs(ahead):.0f} s {relation} the coordinator's, whose engine would refuse the "
            "site; let both follow a time server (NTP)."
        )


def _check_present(folder: Path, names: list[str] | tuple[str, ...]) -> None:
    if missing := [name for name in names if not (folder / name).is_file()]:
        keys = " Copy the kit to where `fedmepd site keys` made the keys." if "client.key" in missing else ""
        raise ConfigurationError(f"{folder} is no whole kit: {', '.join(missing)} missing.{keys}")


def _check_mode(file: Path) -> None:
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & ~PRIVATE_MODE:
        raise ConfigurationError(
            f"{file} can be read or changed by others (mode {mode:o}); if nobody did, `chmod 600 {file}` is enough."
        )


def _check_pair(folder: Path, name: str, authority_file: str, warn: Callable[[str], None]) -> None:
    """Check a private key, its certificate, and the authority that signed it."""
    _check_mode(folder / f"{name}.key")
    certificate, authority = load_certificate(folder / f"{name}.crt"), load_certificate(folder / authority_file)
    if load_private_key(folder / f"{name}.key").public_key() != certificate.public_key():
        raise ConfigurationError(
            f"{folder / name}.crt is not for the key {name}.key beside it; take both from one kit."
        )
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise ConfigurationError(
            f"{folder / name}.crt was not signed by {authority_file} beside it; take both from one kit."
        ) from None
    left = _time_left(certificate)
    if left.total_seconds() < 0:
        raise ConfigurationError(
            f"{folder / name}.crt expired on {certificate.not_valid_after_utc:%Y-%m-%d}; {_RENEWED_BY[name]}."
        )
    if left.days < _WARNING_DAYS:
        warn(f"{folder / name}.crt expires on {certificate.not_valid_after_utc:%Y-%m-%d}; {_RENEWED_BY[name]}.")


def _time_left(certificate: Certificate) -> datetime.timedelta:
    return certificate.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc)
