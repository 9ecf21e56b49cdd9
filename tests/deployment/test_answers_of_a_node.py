"""A site's node keeps no message whose answer cannot come, where Flower's own loop would wait for it."""

from __future__ import annotations

from threading import Thread

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from flwr.app import Message, RecordDict
from flwr.app.error import Error
from flwr.common.constant import SubStatus
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStore, ObjectStoreFactory
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from nnunet_fedmepd.deployment.flower.payload import to_content
from nnunet_fedmepd.deployment.flower.site_node import fetch_message, send_answers

RUN, NODE = 1, 2


class Node:
    """What a node holds, and what it has sent."""

    def __init__(self) -> None:
        self.store: ObjectStore = ObjectStoreFactory().store()
        self.state = InMemoryNodeState(self.store)
        self.task = self.state.create_task(TaskType.CLIENT_APP, RUN) or 0
        self.request = message(Message(to_content(b"request"), NODE, "train"))
        self.keep(self.request, complete=True)
        self.sent: list[str] = []
        self.sending = Thread(target=self._send, daemon=True)
        self.sending.start()

    def keep(self, own: Message, complete: bool) -> None:
        """Store a message, with or without what it consists of."""
        self.store.preregister(RUN, get_object_tree(own))
        for name, value in get_all_nested_objects(own).items():
            if complete:
                self.store.put(name, value.deflate())
        self.state.store_message(own)

    def finish(self, how: str) -> None:
        """End the task."""
        assert self.state.claim_task(self.task)
        assert self.state.activate_task(self.task)
        assert self.state.finish_task(self.task, how, "")

    def _send(self) -> None:
        def send(own: Message, tree: object, seconds: float) -> tuple[set[str], str]:
            return set(get_all_nested_objects(own)), "session"

        def push(run: int, session: str, name: str, content: bytes) -> None:
            self.sent.append(name)

        send_answers(self.state, self.store, send=send, push_object=push)


def message(own: Message) -> Message:
    """Return a message with what the engine gives it."""
    own.metadata.__dict__["_message_id"] = own.object_id
    return own


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    for name, value in {"_run_id": RUN, "_node_id": NODE, "_task_id": 3}.items():
        monkeypatch.setattr(TaskIdentity, name, value)
    return Node()


def test_an_answer_is_sent_when_it_comes(node: Node) -> None:
    answer = message(Message(to_content(b"answer"), reply_to=node.request))
    node.keep(answer, complete=True)
    node.finish(SubStatus.COMPLETED)
    node.sending.join(60)
    assert set(node.sent) == set(get_all_nested_objects(answer))


def test_a_task_without_an_answer_is_forgotten(node: Node) -> None:
    assert node.sending.is_alive()
    node.finish(SubStatus.FAILED)
    node.sending.join(60)
    assert not node.sending.is_alive()
    assert not node.state.msg_store
    assert node.store.get(node.request.metadata.message_id) is None


def test_an_answer_that_is_never_complete_is_given_up(node: Node) -> None:
    node.keep(message(Message(Error(0, "broken off"), reply_to=node.request)), complete=False)
    node.finish(SubStatus.FAILED)
    node.sending.join(60)
    assert not node.sending.is_alive()
    assert node.sent == []
    assert not node.state.msg_store


def test_the_next_message_is_not_taken_for_the_forgotten_one(node: Node) -> None:
    node.finish(SubStatus.FAILED)
    node.sending.join(60)
    following = message(Message(RecordDict(), NODE, "train"))
    node.keep(following, complete=True)
    taken = node.state.get_messages_legacy(run_ids=[RUN], is_reply=False, limit=1)
    assert [own.metadata.message_id for own in taken] == [following.metadata.message_id]


def test_a_message_whose_run_ends_while_it_is_fetched_is_not_waited_for(node: Node) -> None:
    node.finish(SubStatus.FAILED)
    node.sending.join(60)
    node.state.store_run(Run.create_empty(RUN))
    following = message(Message(to_content(b"following"), NODE, "train"))
    following.metadata.__dict__["_run_id"] = RUN

    def pull(run: int, name: str) -> bytes:
        raise RunNotRunningException

    fetched = fetch_message(
        node.state,
        node.store,
        node_config={},
        receive=lambda: (following, get_object_tree(following)),
        get_run=None,
        get_fab=None,
        pull_object=pull,
        confirm_message_received=None,
        trusted_entities=None,
    )
    assert fetched is None
    assert not node.state.msg_store
    assert all(node.store.get(name) is None for name in get_all_nested_objects(following))
