"""Requests and replies: what is sent is what arrives, and nothing else is taken for it."""

from __future__ import annotations

import json
import math
import pickle

import pytest

from nnunet_fedmepd.deployment.requests import (
    MAGIC,
    Ended,
    ExchangeError,
    Failed,
    Join,
    Joined,
    PlannedNetwork,
    SiteFailedError,
    TakeTurn,
    TurnTaken,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    federation_digest,
    is_same_federation,
)
from nnunet_fedmepd.deployment.spool import key_of
from nnunet_fedmepd.nnunet_plugin.joint_planning import SiteTerms
from tests.runtime.small_federation import small_federation

FEDERATION = "f" * 64
TURN = TakeTurn("a" * 32, 3, "p" * 64, b"body")
TAKEN = TurnTaken(False, 0.5, math.nan, 2.5, 592, 500, (1, 2), (0.5, None), b"update")


def test_a_request_arrives_as_it_was_sent():
    assert decode_request(encode_request(TURN, FEDERATION), FEDERATION) == TURN
    assert decode_request(encode_request(Join(), FEDERATION), FEDERATION) == Join()


def test_a_reply_arrives_as_it_was_sent():
    found = decode_reply(encode_reply(TAKEN, FEDERATION, "key"), FEDERATION, "key", TurnTaken)
    assert math.isnan(found.pseudo_dice)
    assert (found.body, found.personal, found.agreement) == (b"update", (1, 2), (0.5, None))
    assert set(found.report) == {
        *("train_loss", "pseudo_dice", "seconds", "filters", "shared_filters", "personal", "agreement"),
    }
    terms = SiteTerms(("T1",), {"background": 0, "whole": [1, 2]}, (1, 2), ".nii.gz")
    joined = Joined("0.1.0", terms, PlannedNetwork("d", {"arch_kwargs": {}}, {"spacing": "e"}, {"T1": "f"}))
    assert decode_reply(encode_reply(joined, FEDERATION, "key"), FEDERATION, "key", Joined) == joined


def test_a_key_is_another_for_another_run_round_or_payload():
    others = [TakeTurn("b" * 32, 3, "p", b"body"), TakeTurn("a" * 32, 4, "p", b"body"), TakeTurn("a" * 32, 3, "p", b"")]
    keys = {key_of(encode_request(request, FEDERATION)) for request in (TURN, *others)}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("federation", "key", "kind", "problem"),
    [
        ("other", "key", TurnTaken, "another federation"),
        (FEDERATION, "other", TurnTaken, "answers another request, of an earlier round or another run"),
        (FEDERATION, "key", Ended, "is a TurnTaken; expected a Ended"),
    ],
)
def test_a_reply_to_something_else_is_refused(federation, key, kind, problem):
    with pytest.raises(ExchangeError, match=problem):
        decode_reply(encode_reply(TAKEN, FEDERATION, "key"), federation, key, kind)


def test_what_went_wrong_at_a_site_is_told_by_its_kind_only():
    with pytest.raises(SiteFailedError, match="failed with a DatasetError: what went wrong is in the site's own log"):
        decode_reply(encode_reply(Failed("DatasetError"), FEDERATION, "key"), FEDERATION, "key", TurnTaken)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 100,
        pickle.dumps({"a": 1}),
        MAGIC,
        MAGIC + (2**62).to_bytes(8, "little") + b"{}",
        MAGIC + (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
        MAGIC + (4).to_bytes(8, "little") + b"null",
        MAGIC + (100_000).to_bytes(8, "little") + b"[" * 100_000,
    ],
    ids=["nothing", "zeros", "pickle", "cut off", "long header", "no text", "no header", "deep"],
)
def test_bytes_that_are_no_reply_are_refused(data):
    with pytest.raises(ExchangeError):
        decode_reply(data, FEDERATION, "key", TurnTaken)


@pytest.mark.parametrize(
    ("name", "value"),
    [("filters", "many"), ("filters", 1.5), ("personal", [1, "a"]), ("agreement", 3), ("surplus", 1), ("body", "x")],
)
def test_a_value_of_another_type_is_refused_and_named(name, value):
    data = encode_reply(TAKEN, FEDERATION, "key")
    length = int.from_bytes(data[8:16], "little")
    header = json.loads(data[16 : 16 + length])
    header["values"][name] = value
    text = json.dumps(header).encode()
    changed = MAGIC + len(text).to_bytes(8, "little") + text
    with pytest.raises(ExchangeError, match=f"a TurnTaken says something impossible: {name}"):
        decode_reply(changed, FEDERATION, "key", TurnTaken)


def test_only_where_a_federation_runs_may_differ_between_its_files():
    federation = small_federation()
    elsewhere = small_federation(run={"devices": ["cuda:0"]}, sites={"a": {"dataset": 42}})
    assert federation_digest(elsewhere) == federation_digest(federation)
    assert federation_digest(small_federation(rounds=9)) != federation_digest(federation)
    assert federation_digest(small_federation(run={"minimum_sites": 2})) != federation_digest(federation)
    assert not is_same_federation(federation_digest(small_federation(rounds=9)), federation_digest(federation))


def with_sites(*sites):
    federation = small_federation()
    return federation_digest(federation.model_copy(update={"site": sites}))


def test_a_site_that_is_added_later_leaves_the_others_files_valid():
    first, *_, last = sites = small_federation().site
    fewer, whole = with_sites(*sites[:-1]), with_sites(*sites)
    for own, other in ((fewer, whole), (whole, fewer)):
        assert is_same_federation(own, other)
        assert decode_request(encode_request(TURN, own), other) == TURN
        assert decode_reply(encode_reply(TAKEN, own, "key"), other, "key", TurnTaken).body == TAKEN.body
    changed = with_sites(first.model_copy(update={"absent_rounds": (1,)}), last)
    with pytest.raises(ExchangeError, match="the federation file of this site is not the coordinator's"):
        decode_request(encode_request(TURN, changed), whole)


@pytest.mark.parametrize("found", [None, 7, [], "", " ", ":", " : : "])
def test_what_is_no_digest_is_of_another_federation(found):
    text = json.dumps({"kind": "Join", "federation": found, "values": {}}).encode()
    with pytest.raises(ExchangeError, match="is not the coordinator's"):
        decode_request(MAGIC + len(text).to_bytes(8, "little") + text, with_sites(*small_federation().site))
