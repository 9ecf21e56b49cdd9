"""A site's node of Flower, which says more often that it is there, and does not wait for what cannot come.

    python -m nnunet_fedmepd.deployment.flower.site_node ARGUMENTS OF flower-supernode

The engine takes a node for alive until two intervals have passed without a word, by default a minute. Until then nobody
knows that a site is gone, and its node is refused when it is started again. The interval is the node's to choose, but
Flower has no option for it. A piece of an answer, of 5 MB, must be through in 30 s, which it never is on a line of 1
Mbit/s: it is sent again and again. Where a task ended without an answer, as when it was taken before its message was
there, Flower's node would wait for the answer for ever, alive to everybody. Where a run ends while its message is being
fetched, the message stays, and whoever took its task waits for the rest of it for an hour. And where the node gives
up, as when the superlink answers 500 for its database is busy, its process stays, for one thread of it goes on: nobody
would start it again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from flwr.common.constant import Status
from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
from flwr.supercore import heartbeat
from flwr.supercore.object_store import ObjectStore
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from nnunet_fedmepd.deployment.flower.heartbeats import PatientSender

LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 15
"""A node that is gone is known to be after twice as long; Flower takes 10 or more."""

_PIECE_SECONDS = 120.0  # two pieces at a time
_POLL_SECONDS = 0.5
_UNFINISHED = (Status.PENDING, Status.STARTING, Status.RUNNING)
_fetch_message: Callable[..., int | None] = start_client_internal._pull_and_store_message
_send_answers: Callable[..., None] = start_client_internal._push_messages


class _PatientClient(FleetHttpClient):
    """Gives pieces of answers the time that a slow line takes."""

    def PushObject(self, request: PushObjectRequest) -> PushObjectResponse:  # noqa: N802  Flower's name
        return self._unary_unary(
            path="/v1/fleet/push-object",
            rpc_method="/flwr.proto.Fleet/PushObject",
            request=request,
            response_type=PushObjectResponse,
            timeout=_PIECE_SECONDS,
        )


class _Objects:
    """What an answer consists of, as long as somebody is there who may still bring it.

    Args:
        state: of the node.
        store: of the node.
    """

    def __init__(self, state: InMemoryNodeState, store: ObjectStore) -> None:
        self._state = state
        self.get_object_tree, self.delete, self._get = store.get_object_tree, store.delete, store.get

    def get(self, name: str) -> bytes | None:
        """Return an object; empty while it is still to come."""
        content = self._get(name)
        if content == b"" and not _is_in_work(self._state) and self._get(name) == b"":
            raise RuntimeError("a task ended before its answer was complete")
        return content


def fetch_message(state: InMemoryNodeState, object_store: ObjectStore, **calls: Any) -> int | None:
    """Fetch a message, and return the id of its run; None where there is none, or it could not be fetched.

    Args:
        state: of the node.
        object_store: what messages consist of.
        calls: of the engine, as Flower's own function takes them.
    """
    run = _fetch_message(state=state, object_store=object_store, **calls)
    if run is None:
        _forget_messages(state, object_store)  # whoever waits for one is told that it is not there
    return run


def send_answers(state: InMemoryNodeState, object_store: ObjectStore, **calls: Any) -> None:
    """Send the answer to the message that is in work when it comes; forget a message that will not have any.

    Args:
        state: of the node.
        object_store: what messages consist of.
        calls: of the engine, as Flower's own function takes them.
    """
    while not _has_answer(state):
        if not _is_in_work(state) and not _has_answer(state):
            LOG.warning("A task ended without an answer; its message is forgotten.")
            _forget_messages(state, object_store)
            return
        time.sleep(_POLL_SECONDS)
    _send_answers(state=state, object_store=_Objects(state, object_store), **calls)


def _forget_messages(state: InMemoryNodeState, object_store: ObjectStore) -> None:
    for message in list(state.msg_store):
        state.delete_messages(message_ids=[message])
        object_store.delete(message)


def _is_in_work(state: InMemoryNodeState) -> bool:
    return bool(state.get_tasks(statuses=_UNFINISHED))


def _has_answer(state: InMemoryNodeState) -> bool:
    with state.lock_msg_store:
        return any(entry.message.metadata.reply_to_message_id for entry in state.msg_store.values())


def main() -> None:
    """Run the node until it is told to end, or gives up; then it is to be started again."""
    changes = {"HEARTBEAT_DEFAULT_INTERVAL": INTERVAL_SECONDS, "HeartbeatSender": PatientSender}
    for module in (heartbeat, fleet_http_connection):
        vars(module).update(changes)
    vars(fleet_http_connection).update({"FleetHttpClient": _PatientClient})
    vars(start_client_internal).update({"_pull_and_store_message": fetch_message, "_push_messages": send_answers})
    try:
        flower_supernode()
    except Exception:
        LOG.exception("the node gives up")
    os._exit(1)  # its server of tasks would go on


if __name__ == "__main__":
    main()
