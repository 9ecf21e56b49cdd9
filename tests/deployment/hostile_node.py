"""A site's node that speaks the engine's protocol itself, and sends more than it is asked for, or at another time.

python -m tests.deployment.hostile_node KIT

It stands for a site's node and connector; the site's own process and its proxy are as ever. What it does is said by the
round.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects
from flwr.supernode.fleet_http_connection import http_request_response

from nnunet_fedmepd.deployment.certificates import load_private_key
from nnunet_fedmepd.deployment.flower.idleness import QUESTION
from nnunet_fedmepd.deployment.flower.payload import from_content, to_content
from nnunet_fedmepd.deployment.kit import load_site_kit
from nnunet_fedmepd.deployment.requests import (
    TakeTurn,
    TurnTaken,
    decode_reply,
    decode_request,
    encode_reply,
    federation_digest,
)
from nnunet_fedmepd.deployment.spool import Spool, key_of
from nnunet_fedmepd.federation.wire import decode, encode

TWICE, LATE, OLD_ROUND, OTHER_RUN = 2, 3, 4, 5
ROUNDS = 5
_SECONDS_LATE = 20.0
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Asked:
    """A request that was answered honestly."""

    message: Message
    answer: bytes


class HostileNode:
    """Takes one message after the other.

    Args:
        connection: what the engine's own node calls.
        kit: folder of the site's kit.
    """

    def __init__(self, connection: Any, kit: Path) -> None:
        _, self.receive, self.send, _, _, self.pull, self.push, self.confirm = connection
        site = load_site_kit(kit)
        self.spool, self.digest = Spool(site.spool_folder), federation_digest(site.federation)
        self.first: Asked | None = None

    def run(self) -> None:
        """Answer as long as this process lives."""
        while True:
            if (received := self.receive()) is None:
                time.sleep(_POLL_SECONDS)
                continue
            self._answer(self._whole(*received))

    def _whole(self, message: Message, tree: ObjectTree) -> Message:
        names, run_id = [node.object_id for node in iterate_object_tree(tree)], message.metadata.run_id
        objects = pull_objects(names, lambda name: self.pull(run_id, name))
        content = inflate_object_from_contents(tree.object_id, objects).content  # type: ignore[attr-defined]
        self.confirm(run_id, message.metadata.message_id)
        message.content = content
        return message

    def _answer(self, message: Message) -> None:
        if message.metadata.message_type == QUESTION:
            self._reply(Message(RecordDict(), reply_to=message), "idle")
            return
        data = from_content(message.content)
        answer, request = self.spool.ask(key_of(data), data), decode_request(data, self.digest)
        number = request.round_number if isinstance(request, TakeTurn) else 0
        if number == 1:
            self.first = Asked(message, answer)
        if number == OLD_ROUND:
            assert self.first is not None
            self._reply(Message(to_content(answer), reply_to=self.first.message), "to an old round")
            answer = self.first.answer
        if number == OTHER_RUN:
            answer = self._of_another_run(answer, key_of(data))
        reply = Message(to_content(answer), reply_to=message)
        if number == LATE:
            time.sleep(max(0.0, message.metadata.created_at + message.metadata.ttl - time.time()) + _SECONDS_LATE)
        self._reply(reply, "late" if number == LATE else "in time")
        if number == TWICE:
            assert self.first is not None
            self._reply(Message(to_content(self.first.answer), reply_to=message), "again")

    def _of_another_run(self, answer: bytes, key: str) -> bytes:
        reply = decode_reply(answer, self.digest, key, TurnTaken)
        update: Any = decode(reply.body, 2**40)
        return encode_reply(replace(reply, body=encode(replace(update, run_id="0" * 32))), self.digest, key)

    def _reply(self, message: Message, how: str) -> None:
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
            objects, run_id = get_all_nested_objects(message), message.metadata.run_id
            wanted, session = self.send(message, get_object_tree(message), 0.0)
            print(f"{how}: {len(wanted)} pieces are taken", flush=True)
            for name in wanted:
                self.push(run_id, session, name, objects[name].deflate())


def main(kit_folder: str) -> None:
    """Run the node of a site's kit, which has the site's own keys."""
    kit = load_site_kit(kit_folder)
    private = load_private_key(kit.folder / "supernode.key")
    address, ca = f"127.0.0.1:{kit.sidecar_port}", (kit.folder / "client_ca.crt").read_bytes()
    with http_request_response(address, False, ca, (private, private.public_key())) as connection:
        HostileNode(connection, kit.folder).run()


if __name__ == "__main__":
    main(sys.argv[1])
