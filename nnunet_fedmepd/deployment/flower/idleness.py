"""Whether a site's node that has a request is idle: then it lost the request, which would be waited for in vain.

The engine hands out a message once. Where a node is killed thereafter and back at once, or the network is cut in that
instant, nobody tells. But a node does one message after the other: a question that it answers shows that it is idle.
While it works it does not take the question, which expires.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from flwr.app import Message, RecordDict
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest

from nnunet_fedmepd.deployment.flower.patience import patiently

if TYPE_CHECKING:
    from flwr.superlink.grid import HttpGrid

QUESTION = "query"
"""Type of the message that asks; a site's connector answers it with nothing, and asks nobody."""

_SECONDS_BETWEEN = 30.0
_SECONDS_TO_EXPIRE = 15.0


class Idleness:
    """Asks nodes now and then.

    Args:
        grid: of the running app.
    """

    def __init__(self, grid: HttpGrid) -> None:
        self.grid = grid
        self._next: dict[str, float] = {}  # message that a node has -> when it is asked about it
        self._questions: dict[str, str] = {}  # question -> message that it is about

    def lost(self, messages: Iterable[tuple[str, int]]) -> set[str]:
        """Return which messages their nodes do not know of.

        Args:
            messages: that nodes have and did not answer yet, by their ids, and the ids of the nodes.
        """
        nodes = dict(messages)
        self._next = {message: self._next.get(message, time.monotonic() + _SECONDS_BETWEEN) for message in nodes}
        self._questions = {question: about for question, about in self._questions.items() if about in nodes}
        found = self._answered()
        for message, due in self._next.items():
            if time.monotonic() > due and message not in self._questions.values():
                question = Message(RecordDict(), nodes[message], QUESTION, ttl=_SECONDS_TO_EXPIRE)
                sent = next(iter(patiently(partial(self.grid.push_messages, [question]))), None)
                if sent:
                    self._questions[sent] = message
                self._next[message] = time.monotonic() + _SECONDS_BETWEEN
        return found

    def _answered(self) -> set[str]:
        if not self._questions:
            return set()
        client, found = self.grid._runtime_client, set()
        pulled = patiently(partial(client.PullMessages, PullAppMessagesRequest(message_ids=list(self._questions))))
        for proto, tree in zip(pulled.messages_list, pulled.message_object_trees, strict=True):
            about = self._questions.pop(proto.metadata.reply_to_message_id)
            if not message_from_proto(proto).has_error():  # it has where it expired, or the node is gone
                found.add(about)
            received = ConfirmMessageReceivedRequest(
                node=self.grid.node, run_id=self.grid.run.run_id, message_object_id=tree.object_id
            )
            patiently(partial(client.ConfirmMessageReceived, received))
        return found
