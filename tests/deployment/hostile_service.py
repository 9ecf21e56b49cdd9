"""A site's process that trains as any does, and answers with something else, another thing in every round.

python -m tests.deployment.hostile_service KIT
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace

import torch

from nnunet_fedmepd.deployment import requests, site_answers
from nnunet_fedmepd.deployment.site_service import main
from nnunet_fedmepd.federation.messages import SiteUpdate
from nnunet_fedmepd.federation.wire import decode, encode

CLAIMED = 400 * 2**20
_earlier: list[bytes] = []


def _changed(change: Callable[[SiteUpdate], SiteUpdate]) -> Callable[[bytes], bytes]:
    return lambda body: encode(change(decode(body, 2**40)))  # type: ignore[arg-type]


def _tensors(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[bytes], bytes]:
    return _changed(
        lambda update: replace(
            update, encoders={m: {n: change(t) for n, t in e.items()} for m, e in update.encoders.items()}
        )
    )


def _first_body(body: bytes) -> bytes:
    return _earlier[0]


# Round -> what becomes of the update in it, and what the journal then says.
BODIES: dict[int, tuple[str, Callable[[bytes], bytes], str]] = {
    1: ("an update of another run", _changed(lambda u: replace(u, run_id="0" * 32)), "it belongs to run '000"),
    2: ("an update of an old round", _first_body, "it belongs to round 1; expected 2"),
    3: ("NaN", _tensors(lambda t: t * float("nan")), "not finite"),
    4: ("a wrong shape", _tensors(lambda t: t[None]), "shape"),
    5: (
        "wrong names",
        _changed(lambda u: replace(u, encoders={m: {f"x{n}": t for n, t in e.items()} for m, e in u.encoders.items()})),
        "lack",
    ),
    6: ("random bytes", lambda body: os.urandom(len(body)), "no message of this protocol|claims"),
    7: ("a pickle", lambda body: pickle.dumps({"weights": [1.0]}), "no message of this protocol|claims"),
    8: ("an update of another site", _changed(lambda u: replace(u, site="b")), "SiteUpdate of 'b'"),
}
# Round -> what becomes of the whole reply.
REPLIES: dict[int, tuple[str, Callable[[bytes], bytes], str]] = {
    9: ("a reply to another request", lambda reply: _earlier[1], "answers another request"),
    10: ("random bytes as a reply", lambda reply: os.urandom(10_000), "no message of this protocol"),
    11: ("one piece, named again and again", lambda reply: bytes(CLAIMED), "claims"),
    12: ("a reply beyond the limit", lambda reply: os.urandom(CLAIMED), "pieces"),
}
ROUNDS = len(BODIES) + len(REPLIES)


def _run() -> int:
    answer, encode_reply = site_answers.SiteAnswers.answer, requests.encode_reply
    number = 0

    def hostile_answer(self: site_answers.SiteAnswers, data: bytes) -> requests.Reply:
        nonlocal number
        reply = answer(self, data)
        if isinstance(reply, requests.TurnTaken):
            number += 1
            _earlier.append(reply.body)
            if number in BODIES:
                return replace(reply, body=BODIES[number][1](reply.body))
        return reply

    def hostile_reply(reply: requests.Reply, federation: str, key: str) -> bytes:
        data = encode_reply(reply, federation, key)
        if not isinstance(reply, requests.TurnTaken):
            return data
        if number == 1:
            _earlier.append(data)
        return REPLIES[number][1](data) if number in REPLIES else data

    site_answers.SiteAnswers.answer = hostile_answer  # type: ignore[method-assign]
    requests.encode_reply = hostile_reply
    return main(sys.argv[1])


if __name__ == "__main__":
    sys.exit(_run())
