"""A site's two private keys, and the request by which a site that made them itself gets its certificate.

KEYS/client.key  supernode.key     stay at the site
KEYS/supernode.pub
KEYS/NAME.request                  for the coordinator; nothing of it is secret
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nnunet_fedmepd.deployment.certificates import (
    common_name,
    fingerprint,
    key_bytes,
    new_key,
    node_key_bytes,
    node_key_pem,
    public_node_key_bytes,
    write_private,
)
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.federation.storage import write_atomically

_END_OF_SIGNING_REQUEST = b"-----END CERTIFICATE REQUEST-----\n"


@dataclass(frozen=True)
class SiteRequest:
    """What the coordinator knows of a site's keys.

    Attributes:
        site: its name.
        connection_key: public key that its certificate is to be for.
        node_key: public key of its node, in OpenSSH's format.
    """

    site: str
    connection_key: ec.EllipticCurvePublicKey
    node_key: bytes


@dataclass(frozen=True)
class SiteKeys:
    """A site's private keys.

    Attributes:
        site: its name.
        connection: of its connection to the coordinator.
        node: by which its node signs.
    """

    site: str
    connection: ec.EllipticCurvePrivateKey
    node: ec.EllipticCurvePrivateKey

    @property
    def request(self) -> SiteRequest:
        """What the coordinator may know."""
        return SiteRequest(self.site, self.connection.public_key(), public_node_key_bytes(self.node.public_key()))

    def write(self, folder: Path) -> None:
        """Write the keys into a site's folder, those that are private with mode 600.

        Raises:
            StateFileError: the folder cannot be written.
        """
        write_private(folder / "client.key", key_bytes(self.connection))
        write_private(folder / "supernode.key", node_key_bytes(self.node))
        write_atomically(folder / "supernode.pub", self.request.node_key)


def new_site_keys(site: str) -> SiteKeys:
    """Return new keys for a site."""
    return SiteKeys(site, new_key(), new_key())


def make_site_keys(site: str, folder: Path) -> Path:
    """Make a site's keys at the site, and return the file of its request.

    Raises:
        ConfigurationError: there are keys already.
        StateFileError: the folder cannot be written.
    """
    if found := [name for name in ("client.key", "supernode.key") if (folder / name).exists()]:
        raise ConfigurationError(
            f"{folder} holds {' and '.join(found)} already, and a certificate may have been made for them; "
            "name another folder."
        )
    keys, file = new_site_keys(site), folder / f"{site}.request"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys.write(folder)
    write_atomically(file, request_bytes(keys))
    return file


def request_bytes(keys: SiteKeys) -> bytes:
    """Return a site's request as one file: a signing request, which vouches for the public key of its node after it."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_vouching(keys.site, keys.request.node_key))
    signing = builder.sign(keys.connection, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)
    return signing + keys.request.node_key


def read_request(file: Path, site: str) -> SiteRequest:
    """Return a site's request.

    Raises:
        ConfigurationError: no such file, not a request, one of another site, or not signed by its own key.
    """
    maker = f"`fedmepd site keys {site} FOLDER` at that site makes it"
    try:
        signing, end, node_key = file.read_bytes().partition(_END_OF_SIGNING_REQUEST)
        request = x509.load_pem_x509_csr(signing + end)
        key = request.public_key()
        node_key_pem(node_key)
    except OSError as error:
        raise ConfigurationError(f"The request {file} cannot be read: {error.strerror}; {maker}.") from None
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise ConfigurationError(f"{file} is no request of a site ({error}); {maker}.") from None
    if (name := common_name(request.subject)) != site:
        raise ConfigurationError(f"{file} is a request of site {name!r}; expected one of site {site!r}.")
    is_signed = request.is_signature_valid and request.subject == _vouching(site, node_key)
    if not is_signed or not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigurationError(f"{file} is not what its keys signed: it was changed on its way; {maker}.")
    return SiteRequest(site, key, node_key)


def _vouching(site: str, node_key: bytes) -> x509.Name:
    unit = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, fingerprint(node_key))
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site), unit])
