"""Messages as bytes, in the safetensors format: typed arrays and a JSON header, never a pickle.

A codec may pack the parameters (`packing`); whatever the codec, what is decoded is checked as any message is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.federation.codecs import CodecError
from nnunet_fedmepd.federation.messages import Anchors, HandOver, LeadUpdate, Message, SiteUpdate
from nnunet_fedmepd.federation.packing import PACKED, Reference, pack, unpack
from nnunet_fedmepd.federation.tensors import (
    LayoutError,
    put,
    put_filters,
    put_list,
    put_nested,
    sections,
    storable,
    take,
    take_filters,
    take_list,
    take_nested,
)
from nnunet_fedmepd.maths.parameters import ParameterError

SECTIONS: dict[type, frozenset[str]] = {
    HandOver: frozenset({"encoder", "decoder_filters", "decoder_masks", "anchors", "share_denominator"}),
    SiteUpdate: frozenset({"encoder", "decoder_filters", "decoder_masks", "importance"}),
    LeadUpdate: frozenset({"encoder", "decoder", "anchors"}),
}
KINDS: dict[str, type] = {kind.__name__: kind for kind in SECTIONS}
HEADER_LIMIT = 64 * 2**20  # bytes; safetensors itself allows 100 MB


class MessageError(FedMEPDError):
    """Bytes are no message of this protocol."""


@dataclass(frozen=True)
class ManifestRow:
    """One array that travels."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    n_bytes: int


def encode(message: Message, codec: str = "none", reference: Reference | None = None) -> bytes:
    """Return a message as bytes; `decode` with the same reference is the inverse, but for a lossy codec's rounding.

    Args:
        message: to encode.
        codec: by which its parameters are packed (see `codecs`).
        reference: to code differences from; None codes the parameters themselves.
    """
    flat, packing = pack(tensors_of(message), codec, reference)
    header = {"kind": type(message).__name__, **_scalars(message), **packing}
    return safetensors.torch.save(storable(flat), {"fedmepd": json.dumps(header, separators=(",", ":"))})


def decode(data: bytes, limit_bytes: int, reference: Reference | None = None) -> Message:
    """Return the message in `data`, whatever its codec.

    Args:
        data: from a stranger.
        limit_bytes: that it may have, and that it may unpack to.
        reference: what the message was coded against.

    Raises:
        MessageError: too long, or not a message.
    """
    if len(data) > limit_bytes:
        raise MessageError(f"A message has {len(data)} bytes; at most {limit_bytes} are expected.")
    try:
        header, flat = _header(data), safetensors.torch.load(data)
        if PACKED in header:
            flat = unpack(flat, header.pop(PACKED), reference, limit_bytes)
        kind = KINDS[header.pop("kind")]
        if unknown := set(sections(flat)) - SECTIONS[kind]:
            raise MessageError(f"A {kind.__name__} has unknown sections {sorted(unknown)}.")
        return _FROM_TENSORS[kind](flat, header)
    except (CodecError, ParameterError) as error:
        raise MessageError(str(error)) from None
    except (SafetensorError, LayoutError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise MessageError(f"Bytes are no message of this protocol: {type(error).__name__}: {error}") from None


def manifest(message: Message) -> list[ManifestRow]:
    """Return what a message holds, array by array; besides it, its round, names and numbers of cases travel."""
    return [
        ManifestRow(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.nbytes)
        for name, tensor in tensors_of(message).items()
    ]


def tensors_of(message: Message) -> dict[str, Tensor]:
    """Return the message's arrays by section and name."""
    flat = put_nested("encoder", message.encoders)
    if isinstance(message, LeadUpdate):
        return flat | put("decoder", message.decoder) | _put_anchors(message.anchors)
    flat |= put_filters("decoder", message.decoder)
    if isinstance(message, SiteUpdate):
        return flat | put("importance", message.importance)
    return flat | _put_anchors(message.anchors) | put("share_denominator", message.share_denominators)


def _scalars(message: Message) -> dict[str, Any]:
    if isinstance(message, HandOver):
        names = ("run_id", "round_number", "n_cases_total", "counted")
    else:
        names = ("run_id", "site", "round_number", "n_cases")
    return {name: getattr(message, name) for name in names}


def _header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    if length > HEADER_LIMIT:
        raise MessageError(f"A message's header claims {length} bytes; at most {HEADER_LIMIT} are expected.")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["fedmepd"])
    for name, kind in {"run_id": str, "site": str, "round_number": int, "n_cases": int, "n_cases_total": int}.items():
        if name in header and type(header[name]) is not kind:
            raise MessageError(f"A message's {name} is {header[name]!r}; expected {kind.__name__}.")
    return header


def _hand_over(flat: Mapping[str, Tensor], header: Mapping[str, Any]) -> HandOver:
    return HandOver(
        encoders=take_nested(flat, "encoder"),
        decoder=take_filters(flat, "decoder"),
        anchors=_take_anchors(flat),
        share_denominators=take(flat, "share_denominator"),
        **header,
    )


def _site_update(flat: Mapping[str, Tensor], header: Mapping[str, Any]) -> SiteUpdate:
    return SiteUpdate(
        encoders=take_nested(flat, "encoder"),
        decoder=take_filters(flat, "decoder"),
        importance=take(flat, "importance"),
        **header,
    )


def _lead_update(flat: Mapping[str, Tensor], header: Mapping[str, Any]) -> LeadUpdate:
    return LeadUpdate(
        encoders=take_nested(flat, "encoder"), decoder=take(flat, "decoder"), anchors=_take_anchors(flat), **header
    )


_FROM_TENSORS: dict[type, Callable[[Mapping[str, Tensor], Mapping[str, Any]], Message]] = {
    HandOver: _hand_over,
    SiteUpdate: _site_update,
    LeadUpdate: _lead_update,
}


def _put_anchors(anchors: Anchors | None) -> dict[str, Tensor]:
    if anchors is None:
        return {}
    return put_list("anchors/value", anchors.values) | {"anchors/valid": anchors.valid}


def _take_anchors(flat: Mapping[str, Tensor]) -> Anchors | None:
    if "anchors/valid" not in flat:
        return None
    return Anchors(take_list(flat, "anchors/value"), flat["anchors/valid"])
