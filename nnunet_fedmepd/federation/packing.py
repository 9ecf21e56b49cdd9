"""The parameters of a message as one coded block, by a codec and against what both ends know.

In the flat form of `tensors`, everything else of a message (masks, importance, anchors) stays as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_fedmepd.federation.codecs import Codec, CodecError, codec_named
from nnunet_fedmepd.federation.messages import HandOver, Parameters
from nnunet_fedmepd.federation.tensors import put, put_list, put_nested, take, take_list
from nnunet_fedmepd.maths.parameters import FilterGroup, dense, select

PACKED = "packed"
_CODED_SECTIONS = ("encoder", "decoder", "decoder_filters")
Shapes = list[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Reference:
    """What both ends know when an update travels: the parameters that its turn was handed.

    Attributes:
        encoders: modality -> parameters.
        decoder: the whole fusion decoder, anything in filters that were not handed over; empty where it does not
            travel.
        groups: its filters.
    """

    encoders: Mapping[str, Parameters]
    decoder: Parameters
    groups: Sequence[FilterGroup]

    @classmethod
    def of(cls, hand_over: HandOver, groups: Sequence[FilterGroup]) -> Reference:
        """Return what a site knows."""
        decoder = {} if hand_over.decoder is None else dense(hand_over.decoder, groups)
        return cls(hand_over.encoders, decoder, groups)

    def flat(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters as an update that shares the filters of `masks` names them.

        Raises:
            ParameterError: the masks do not fit the decoder.
        """
        flat = put_nested("encoder", self.encoders) | put("decoder", self.decoder)
        if masks and self.decoder:
            flat |= put("decoder_filters", select(self.decoder, self.groups, masks).values)
        return flat


def pack(
    flat: Mapping[str, Tensor], codec_name: str, reference: Reference | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a message's tensors with its parameters coded, and what `unpack` needs besides them.

    Args:
        flat: the message's tensors.
        codec_name: `none` leaves them as they are.
        reference: to code differences from; None codes the parameters themselves.
    """
    codec = codec_named(codec_name)
    if codec is None:
        return dict(flat), {}
    shapes = [(name, tuple(tensor.shape)) for name, tensor in flat.items() if _is_coded(name, tensor)]
    known = _known(shapes, reference, flat)
    blocks = codec.pack(_joined([flat[name] for name, _ in shapes]), known)
    rest = {name: tensor for name, tensor in flat.items() if name not in dict(shapes)}
    packed = put_list(PACKED, [torch.from_numpy(np.frombuffer(block, np.uint8).copy()) for block in blocks])
    header = {"codec": codec.name, "reference": _digest(known), "arrays": [[name, *shape] for name, shape in shapes]}
    return rest | packed, {PACKED: header}


def unpack(
    flat: Mapping[str, Tensor], header: Mapping[str, Any], reference: Reference | None, limit_bytes: int
) -> dict[str, Tensor]:
    """Return a message's tensors; the inverse of `pack`, but for the rounding of a lossy codec.

    Raises:
        CodecError: an unknown codec, arrays that are not those of the reference or beyond the limit (found out before
            anything is decompressed), another reference, or damaged bytes.
        ParameterError: masks that do not fit the decoder.
    """
    codec: Codec | None = codec_named(str(header["codec"]))
    if codec is None:
        raise CodecError("A message is packed by no codec.")
    shapes = _checked_shapes(header["arrays"], limit_bytes)
    known = _known(shapes, reference, flat)
    if header["reference"] != _digest(known):
        raise CodecError("A message holds differences from other parameters than those that were handed over.")
    values = codec.unpack([block.numpy().tobytes() for block in take_list(flat, PACKED)], known)
    parts = values.split([prod(shape) for _, shape in shapes])
    coded = {name: part.reshape(shape) for (name, shape), part in zip(shapes, parts, strict=True)}
    return {name: tensor for name, tensor in flat.items() if not name.startswith(f"{PACKED}/")} | coded


def _is_coded(name: str, tensor: Tensor) -> bool:
    return name.split("/", 1)[0] in _CODED_SECTIONS and tensor.dtype == torch.float32


def _checked_shapes(arrays: Any, limit_bytes: int) -> Shapes:
    shapes = [(str(name), tuple(shape)) for name, *shape in arrays]
    for name, shape in shapes:
        if not name.startswith(tuple(f"{section}/" for section in _CODED_SECTIONS)):
            raise CodecError(f"A message packs an array {name[:100]!r}, which is no parameter.")
        if not all(type(length) is int and length >= 0 for length in shape):
            raise CodecError(f"A message packs an array {name[:100]!r} of shape {shape}; expected whole numbers.")
    total = 4 * sum(prod(shape) for _, shape in shapes)
    if total > limit_bytes:
        raise CodecError(f"A message claims to unpack to {total} bytes; at most {limit_bytes} are expected.")
    return shapes


def _known(shapes: Shapes, reference: Reference | None, flat: Mapping[str, Tensor]) -> Tensor:
    """Return what is known of the arrays, one behind the other: (N,) float32, zeros without a reference."""
    if reference is None:
        return torch.zeros(sum(prod(shape) for _, shape in shapes))
    known = reference.flat(take(flat, "decoder_masks"))
    for name, shape in shapes:
        expected = tuple(known[name].shape) if name in known else None
        if shape != expected:
            wanted = "no such array" if expected is None else f"shape {expected}"
            raise CodecError(f"A message packs {name[:100]!r} with shape {shape}; expected {wanted}.")
    return _joined([known[name] for name, _ in shapes])


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.zeros(0), *(tensor.detach().cpu().flatten() for tensor in tensors)])


def _digest(known: Tensor) -> str:
    return hashlib.sha256(known.numpy().tobytes()).hexdigest()[:16]
