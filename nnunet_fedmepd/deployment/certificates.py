"""Keys and certificates of a deployment, all ECDSA on P-384.

Two authorities, so that no site's certificate can pose as the coordinator's:
    server authority   signs the coordinator's certificate; every site knows it (ca.crt)
    client authority   signs one certificate per site; the coordinator knows it (client_ca.crt)
A site's certificate also serves its own proxy on the loopback address, to which only the site's own node connects.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.federation.storage import write_atomically

LOOPBACK = ("localhost", "127.0.0.1")
# In the coordinator's certificate, whatever its address: by this name sites check it, also through a tunnel.
COORDINATOR = "coordinator"
AUTHORITY_DAYS = 3650
DEFAULT_DAYS = 730
PRIVATE_MODE = 0o600

# A certificate counts from a day before it was made: clocks differ.
_CLOCK_DIFFERENCE = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """A key that signs certificates, and its own certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key."""
    return ec.generate_private_key(ec.SECP384R1())


def new_authority(name: str, days: int = AUTHORITY_DAYS) -> Authority:
    """Return a new authority whose certificate is signed by itself."""
    key = new_key()
    builder = _certificate(_named(name), _named(name), key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return Authority(key, _signed(builder, key, key.public_key()))


def server_certificate(
    authority: Authority, key: ec.EllipticCurvePublicKey, host: str, days: int = DEFAULT_DAYS
) -> x509.Certificate:
    """Return the coordinator's certificate, for its published name or address and for the loopback address."""
    hosts = (COORDINATOR, host, *LOOPBACK)
    return _end_certificate(authority, key, COORDINATOR, hosts, days, [ExtendedKeyUsageOID.SERVER_AUTH])


def client_certificate(
    authority: Authority, key: ec.EllipticCurvePublicKey, site: str, days: int = DEFAULT_DAYS
) -> x509.Certificate:
    """Return a site's certificate; its only name is that of the site."""
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    return _end_certificate(authority, key, site, LOOPBACK, days, usages)


def certificate_bytes(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM, not encrypted: services start without anybody who types a password."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def node_key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the private key of a node in OpenSSH's format, which the engine reads."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def public_node_key_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the public key of a node in OpenSSH's format, one line."""
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) + b"\n"


def node_key_pem(node_key: bytes) -> bytes:
    """Return the public key of a node as PEM, which is how a node names itself to the coordinator.

    Args:
        node_key: in OpenSSH's format.

    Raises:
        ValueError: it is no P-384 key.
    """
    key = serialization.load_ssh_public_key(node_key)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("it is no ECDSA key on P-384")
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def serial_number(certificate: x509.Certificate) -> str:
    """Return a certificate's serial number as OpenSSL and nginx write it: whole bytes, hexadecimal."""
    number = certificate.serial_number
    return number.to_bytes((number.bit_length() + 7) // 8, "big").hex().upper()


def common_name(name: x509.Name) -> str:
    """Return the common name in a certificate or a request, empty if it has none."""
    attributes = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attributes[0].value) if attributes else ""


def fingerprint(data: bytes) -> str:
    """Return a short digest of a file that two people can compare by telephone."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    text = digest.finalize().hex()[:32]
    return ":".join(text[i : i + 4] for i in range(0, len(text), 4))


def load_certificate(file: Path) -> x509.Certificate:
    """Return the certificate in a file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} is no certificate that can be read: {error}") from None


def load_authority(folder: Path, name: str) -> Authority:
    """Return an authority from the folder in which `deploy init` wrote it.

    Raises:
        ConfigurationError: it cannot be read.
    """
    return Authority(load_private_key(folder / f"{name}.key"), load_certificate(folder / f"{name}.crt"))


def load_private_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """Return the private key in a file, in either format.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        data = file.read_bytes()
        is_ssh = b"OPENSSH" in data[:64]
        key = (serialization.load_ssh_private_key if is_ssh else serialization.load_pem_private_key)(data, None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{file} is no private key that can be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{file} holds another kind of key; expected one that `fedmepd` made (ECDSA).")
    return key


def write_private(file: Path, data: bytes) -> None:
    """Write a private key that nobody but its owner can read, at any moment.

    Raises:
        StateFileError: the folder cannot be written.
    """
    before = os.umask(0o777 & ~PRIVATE_MODE)
    try:
        write_atomically(file, data)
    finally:
        os.umask(before)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_DIFFERENCE - datetime.timedelta(days=max(0, -days)))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _end_certificate(
    authority: Authority,
    key: ec.EllipticCurvePublicKey,
    name: str,
    hosts: Sequence[str],
    days: int,
    usages: list[x509.ObjectIdentifier],
) -> x509.Certificate:
    builder = _certificate(_named(name), authority.certificate.subject, key, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    names = [_alternative_name(host) for host in dict.fromkeys(hosts)]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _signed(builder, authority.key, key)


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, subject_key: ec.EllipticCurvePublicKey
) -> x509.Certificate:
    # Python 3.13 refuses certificates without these two.
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(subject_key), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
    )
    return builder.sign(key, hashes.SHA384())


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
