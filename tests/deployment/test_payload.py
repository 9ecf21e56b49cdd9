"""Payloads in Flower's objects: put together within bounds, whatever they claim."""

from __future__ import annotations

import json
import tracemalloc

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from flwr.app import Array, RecordDict
from flwr.supercore.inflatable.inflatable_object import add_header_to_object_body, get_all_nested_objects

from nnunet_fedmepd.deployment.flower.payload import PayloadError, from_content, from_objects, to_content

PIECE = 5 * 2**20


def objects_of(content):
    return {name: made.deflate() for name, made in get_all_nested_objects(content).items()}


@pytest.mark.parametrize("data", [b"a", bytes(3 * PIECE), bytes(range(256)) * 60_000], ids=["short", "equal", "long"])
def test_bytes_come_out_as_they_went_in(data):
    content = to_content(data)
    assert from_content(content) == data
    assert from_objects(objects_of(content), len(data)) == data


def test_a_message_without_an_array_has_no_payload():
    assert from_objects(objects_of(RecordDict()), 100) is None


def test_a_longer_payload_is_refused():
    with pytest.raises(PayloadError, match="claims 100 bytes; at most 99"):
        from_objects(objects_of(to_content(bytes(100))), 99)


def test_a_piece_that_is_named_again_and_again_is_not_unpacked():
    objects = objects_of(to_content(bytes(PIECE)))
    (name,) = [name for name, content in objects.items() if content.startswith(b"Array ")]
    array = Array("uint8", (PIECE,), "bytes", bytes(PIECE))
    body = json.dumps({"dtype": "uint8", "shape": [1], "stype": "bytes", "arraychunk_ids": [0] * 2000}).encode()
    objects[name] = add_header_to_object_body(object_body=body, obj=array)
    tracemalloc.start()
    with pytest.raises(PayloadError, match="claims 10485760000 bytes"):
        from_objects(objects, 10 * PIECE)
    assert tracemalloc.get_traced_memory()[1] < 3 * PIECE
    tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"Array 0", b"Array  3\x00no!", b"ArrayChunk  1\x00a", b"\xff" * 50])
def test_objects_that_are_none_are_refused(content):
    objects = objects_of(to_content(b"data"))
    (name,) = [name for name, own in objects.items() if own.startswith(b"Array ")]
    with pytest.raises(PayloadError):
        from_objects({**objects, name: content, "other": b"Array  2\x00{}"}, 100)
