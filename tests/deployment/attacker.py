"""What an attacker sends: requests of the engine's protocol, with whatever keys and certificates were come by."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ssl
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.control_pb2 import ListRunsRequest, RegisterNodeRequest, StartRunRequest, StopRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.date import now
from google.protobuf.message import Message

from nnunet_fedmepd.deployment.certificates import load_private_key, new_key, node_key_pem, public_node_key_bytes

MEDIA_TYPE = "application/protobuf"


@dataclass(frozen=True)
class Certificate:
    """A client certificate and its key."""

    certificate: Path
    key: Path


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Attacker:
    """Somebody who can reach a port.

    Attributes:
        ca: the public certificate by which sites know the coordinator.
        client: that is shown to the proxy; None: none.
        node_key: that signs requests; it may be a site's or the attacker's own.
    """

    ca: Path
    client: Certificate | None
    node_key: ec.EllipticCurvePrivateKey

    def post(self, port: int, path: str, message: Message) -> Answer:
        """Send a signed request to a port of the loopback address, the path as it is spelled."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if self.client is not None:
            context.load_cert_chain(self.client.certificate, self.client.key)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
        headers = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE, **self._signature()}
        with contextlib.closing(connection):
            connection.request("POST", path, message.SerializeToString(), headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())

    @property
    def public_key(self) -> bytes:
        """The node key's public part, as the engine writes it."""
        return node_key_pem(public_node_key_bytes(self.node_key.public_key()))

    def _signature(self) -> dict[str, str]:
        timestamp = now().isoformat()
        signature = self.node_key.sign(timestamp.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "flwr-public-key": b64encode(self.public_key).decode(),
            "flwr-timestamp": timestamp,
            "flwr-signature": b64encode(signature).decode(),
        }


def site_attacker(site: Path, ca: Path, node_key: Path | None = None) -> Attacker:
    """Return somebody with a site's kit, and perhaps the node key of another one."""
    key = load_private_key(node_key or site / "supernode.key")
    return Attacker(ca, Certificate(site / "client.crt", site / "client.key"), key)


def stranger(ca: Path) -> Attacker:
    """Return somebody with nothing but the public certificate, and a key of their own."""
    return Attacker(ca, None, new_key())


def register_over_fleet(attacker: Attacker) -> tuple[str, Message]:
    """Return the call by which a node registers itself, which an engine without authentication of nodes allows."""
    return "/v1/fleet/register-node", RegisterNodeFleetRequest(public_key=attacker.public_key)


def join(attacker: Attacker) -> tuple[str, Message]:
    """Return the call by which a registered node says that it is there."""
    return "/v1/fleet/activate-node", ActivateNodeRequest(public_key=attacker.public_key, heartbeat_interval=30)


def read_messages(node_id: int) -> tuple[str, Message]:
    """Return the call by which a node gets what was sent to it; whoever may make it is that node to the engine."""
    return "/v1/fleet/pull-messages", PullMessagesRequest(node=Node(node_id=node_id))


def register(attacker: Attacker) -> tuple[str, Message]:
    """Return the call by which a node is registered."""
    return "/v1/control/register-node", RegisterNodeRequest(public_key=attacker.public_key)


def start_code(fab: bytes) -> tuple[str, Message]:
    """Return the call that starts a program at the coordinator and at all sites."""
    return "/v1/control/start-run", StartRunRequest(fab=Fab(hash_str=hashlib.sha256(fab).hexdigest(), content=fab))


def stop(run_id: int) -> tuple[str, Message]:
    """Return the call that stops a run."""
    return "/v1/control/stop-run", StopRunRequest(run_id=run_id)


def list_runs() -> tuple[str, Message]:
    """Return the call that lists runs."""
    return "/v1/control/list-runs", ListRunsRequest()
