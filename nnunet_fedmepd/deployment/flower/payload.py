"""Bytes as the content of a Flower message, and back, within bounds.

Flower stores an array in pieces, each under its hash, and a list of them may name a piece any number of times: what
comes from a stranger is put together here, not by Flower's own classes, so that its size is known before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from flwr.app import Array, ArrayRecord, RecordDict
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
)


class PayloadError(ValueError):
    """A message holds no payload of ours, or a longer one than is allowed."""


def to_content(data: bytes) -> RecordDict:
    """Return what a message with these bytes contains."""
    return RecordDict({"payload": ArrayRecord({"bytes": Array("uint8", (len(data),), "bytes", data)})})


def from_content(content: RecordDict) -> bytes:
    """Return the bytes in a message from the site's own node, which has bounded them.

    Raises:
        PayloadError: there are none.
    """
    try:
        return content.array_records["payload"]["bytes"].data
    except (KeyError, AttributeError):
        raise PayloadError("the message holds no payload") from None


def from_objects(objects: Mapping[str, bytes], limit_bytes: int) -> bytes | None:
    """Return the bytes in the objects of a message; None where it holds no array, as an error does not.

    Args:
        objects: of a message, by their hashes.
        limit_bytes: that the bytes may have.

    Raises:
        PayloadError: too long, or malformed.
    """
    try:
        heads = {name: get_object_head_values_from_object_content(content) for name, content in objects.items()}
        arrays = [name for name, (kind, _, _) in heads.items() if kind == Array.__qualname__]
        if not arrays:
            return None
        (array,) = arrays
        pieces = [
            heads[array][1][number] for number in json.loads(get_object_body(objects[array], Array))["arraychunk_ids"]
        ]
        bodies = {name: _body(objects[name]) for name in set(pieces)}
        length = sum(len(bodies[piece]) for piece in pieces)
        if length > limit_bytes:
            raise PayloadError(f"it claims {length} bytes; at most {limit_bytes} are expected")
        return b"".join(bodies[piece] for piece in pieces)
    except PayloadError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise PayloadError(f"it is no message of this protocol: {type(error).__name__}") from None


def _body(content: bytes) -> memoryview:
    """Return an object's body without a copy."""
    return memoryview(content)[content.index(HEAD_BODY_DIVIDER) + len(HEAD_BODY_DIVIDER) :]
