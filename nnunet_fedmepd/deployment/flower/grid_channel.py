"""The coordinator's end of Flower: a `Channel` over the grid of a running app."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

from flwr.app import Message
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.superlink.grid import HttpGrid

from nnunet_fedmepd.deployment.channel import NoAnswer
from nnunet_fedmepd.deployment.flower.idleness import Idleness
from nnunet_fedmepd.deployment.flower.patience import patiently
from nnunet_fedmepd.deployment.flower.payload import PayloadError, from_objects, to_content

LOG = logging.getLogger(__name__)
POLL_SECONDS = 0.5
# A site whose process is started again, or whose network or machine comes back, keeps its turn.
GRACE_SECONDS = 90.0
# A site that is there and of which no piece comes for so long has broken off; Flower itself would wait for 3 minutes.
STALLED_SECONDS = 120.0
_OTHER_OBJECTS = 16  # of a message, besides the pieces of its payload


@dataclass
class _Asked:
    """A site that has been asked.

    Attributes:
        make: makes its request.
        message: id of the message that waits for an answer; empty: it is to be asked again.
        asked_at: when that was sent.
        lost_since: when it was first found away; None: it never was.
        reason: why it is away.
    """

    make: Callable[[], bytes]
    message: str = ""
    asked_at: float = 0.0
    lost_since: float | None = None
    reason: str = ""


class GridChannel:
    """Exchanges bytes with sites through a superlink.

    Args:
        grid: of the running app.
        nodes: site -> id of its registered node.
        grace_seconds: that a site which is lost while it has its turn is asked again for.
    """

    def __init__(self, grid: HttpGrid, nodes: Mapping[str, int], grace_seconds: float = GRACE_SECONDS) -> None:
        self.grid, self.nodes, self.grace_seconds = grid, nodes, grace_seconds
        self._idleness = Idleness(grid)
        self._away: set[str] = set()  # were waited for in vain the last time, and are not waited for again

    def exchange(
        self, requests: Mapping[str, Callable[[], bytes]], limit_bytes: int, seconds: float
    ) -> Iterator[tuple[str, bytes | NoAnswer]]:
        until = time.monotonic() + seconds
        asked = {site: _Asked(make) for site, make in requests.items()}
        connected, reason = set(patiently(self.grid.get_node_ids)), "its node is not connected"
        for site in [site for site in asked if self.nodes[site] not in connected]:
            if site in self._away:
                del asked[site]
                yield site, NoAnswer(reason)
            else:
                self._lose(site, asked[site], reason)
        while asked and time.monotonic() < until:
            self._send(asked, seconds)
            for site, answer in self._answers(asked, limit_bytes):
                if self._is_lost(site, asked[site], answer):
                    continue
                del asked[site]
                if isinstance(answer, bytes) or answer.refused:
                    self._away.discard(site)
                else:
                    self._away.add(site)
                yield site, answer
            time.sleep(POLL_SECONDS)
        for site, own in asked.items():
            yield site, NoAnswer(own.reason or f"no answer within {seconds:.0f} s")

    def _send(self, asked: Mapping[str, _Asked], seconds: float) -> None:
        """Send the requests of those that are connected and not asked yet, or to be asked again."""
        if all(own.message for own in asked.values()):
            return
        connected = set(patiently(self.grid.get_node_ids))
        for site, own in asked.items():
            if not own.message and self.nodes[site] in connected:
                own.message = patiently(partial(self._push, self.nodes[site], own.make(), seconds))
                own.asked_at = time.monotonic()

    def _push(self, node: int, request: bytes, seconds: float) -> str:
        """Send a request; returns its message's id, empty where it could not be stored."""
        message = Message(to_content(request), node, "train", ttl=seconds)
        return next(iter(self.grid.push_messages([message])), "") or ""

    def _is_lost(self, site: str, own: _Asked, answer: bytes | NoAnswer) -> bool:
        """Return whether a site did not answer, and is to be asked again."""
        if isinstance(answer, bytes) or answer.refused:
            return False
        if own.message and (own.lost_since is None or time.monotonic() - own.asked_at > self.grace_seconds):
            self._lose(site, own, answer.reason)
        own.message, own.reason = "", answer.reason
        return own.lost_since is not None and time.monotonic() - own.lost_since < self.grace_seconds

    def _lose(self, site: str, own: _Asked, reason: str) -> None:
        own.lost_since, own.reason = time.monotonic(), reason
        LOG.warning("site %s: %s; it keeps its turn for %.0f s", site, reason, self.grace_seconds)

    def _answers(self, asked: Mapping[str, _Asked], limit_bytes: int) -> Iterator[tuple[str, bytes | NoAnswer]]:
        """Yield what has come, one after the other: only one answer is in memory."""
        sites = {own.message: site for site, own in asked.items() if own.message}
        lost = self._idleness.lost((message, self.nodes[site]) for message, site in sites.items())
        for site, own in list(asked.items()):
            if not own.message and own.lost_since and time.monotonic() - own.lost_since >= self.grace_seconds:
                yield site, NoAnswer(own.reason)
        client = self.grid._runtime_client
        if not sites:
            return
        pulled = patiently(partial(client.PullMessages, PullAppMessagesRequest(message_ids=list(sites))))
        for message, tree in zip(pulled.messages_list, pulled.message_object_trees, strict=True):
            site = sites[message.metadata.reply_to_message_id]
            names = [node.object_id for node in iterate_object_tree(tree)]
            try:
                yield site, self._load(self.nodes[site], tree.object_id, names, limit_bytes)
            except PayloadError as error:
                yield site, NoAnswer(str(error), refused=True)
            except ObjectPullError:
                yield site, NoAnswer("it broke off while it sent its answer")
            finally:
                received = ConfirmMessageReceivedRequest(
                    node=self.grid.node, run_id=self.grid.run.run_id, message_object_id=tree.object_id
                )
                patiently(partial(client.ConfirmMessageReceived, received))
            lost.discard(message.metadata.reply_to_message_id)
        for message in lost:  # no answer came before the question about it was answered
            yield sites[message], NoAnswer("its node lost the request")

    def _load(self, node: int, message: str, names: list[str], limit_bytes: int) -> bytes | NoAnswer:
        if len(names) > limit_bytes / FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + _OTHER_OBJECTS:
            raise PayloadError(f"it has {len(names)} pieces; at most {limit_bytes} bytes are expected")
        pull, lock, loaded, last = (
            make_pull_object_fn_protobuf(self.grid._runtime_client.PullObject, self.grid.node, self.grid.run.run_id),
            threading.Lock(),
            [0],
            [time.monotonic()],
        )

        def bounded(name: str) -> bytes:
            try:
                data = patiently(partial(pull, name))
            except ObjectUnavailableError:  # it is not there yet
                if time.monotonic() - last[0] > STALLED_SECONDS or node not in patiently(self.grid.get_node_ids):
                    raise ObjectPullError(name, "nothing comes any more") from None
                raise
            with lock:
                last[0] = time.monotonic()
                loaded[0] += len(data)
                if loaded[0] > limit_bytes + FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE:
                    raise PayloadError(f"it has more than the {limit_bytes} bytes that are expected")
            return data

        objects = pull_objects(names, bounded)
        payload = from_objects(objects, limit_bytes)
        if payload is not None:
            return payload
        try:
            reply = cast(Message, inflate_object_from_contents(message, objects))
            return NoAnswer(str(reply.error.reason)[:300])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PayloadError(f"it is no message of this protocol: {type(error).__name__}") from None
