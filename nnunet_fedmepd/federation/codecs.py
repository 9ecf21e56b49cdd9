"""Parameters as few bytes: numbers as differences from what both ends know, rounded or not, then compressed.

A codec turns a vector of N float32 into one or two arrays whose types and lengths follow from N alone, so the receiver
knows how long they are before it decompresses anything. The arrays are compressed by Blosc2: bytes of equal rank side
by side, then Zstandard.

    lossless  the difference of the bit patterns, as integers: every bit comes back
    bf16      the difference in bfloat16: 8 significant bits
    int8      the difference in steps of 1/127 of the largest one of its block of 256

Both ends compute in float32 with the same operations: they agree to the bit on what was received.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import blosc2
import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from nnunet_fedmepd.errors import FedMEPDError

BLOCK = 256
LEVELS = 127
Arrays = list[NDArray]


class CodecError(FedMEPDError):
    """Bytes are not what a codec makes of so many numbers."""


@dataclass(frozen=True)
class Codec:
    """One way to write a vector of differences.

    Attributes:
        name: in the federation file and in messages.
        is_lossy: whether what comes out differs from what went in.
        layout: N -> (type, length) of each array.
        write: (N,) values and reference -> arrays.
        read: arrays and (N,) reference -> values.
    """

    name: str
    is_lossy: bool
    layout: Callable[[int], list[tuple[DTypeLike, int]]]
    write: Callable[[Tensor, Tensor], Arrays]
    read: Callable[[Arrays, Tensor], Tensor]

    def pack(self, values: Tensor, reference: Tensor) -> list[bytes]:
        """Return (N,) float32 values as bytes; `unpack` with the same reference gives them back, rounded if lossy."""
        return [_compress(array) for array in self.write(values, reference)]

    def unpack(self, packed: Sequence[bytes], reference: Tensor) -> Tensor:
        """Return the (N,) float32 values.

        Raises:
            CodecError: the bytes do not hold N values; found out before they are decompressed.
        """
        layout = self.layout(reference.numel())
        if len(packed) != len(layout):
            raise CodecError(f"Codec {self.name} writes {len(layout)} arrays; found {len(packed)}.")
        return self.read([_decompress(data, *of) for data, of in zip(packed, layout, strict=True)], reference)


def _write_lossless(values: Tensor, reference: Tensor) -> Arrays:
    return [(values.view(torch.int32) - reference.view(torch.int32)).numpy()]


def _read_lossless(arrays: Arrays, reference: Tensor) -> Tensor:
    return (torch.from_numpy(arrays[0]) + reference.view(torch.int32)).view(torch.float32)


def _write_bf16(values: Tensor, reference: Tensor) -> Arrays:
    return [(values - reference).bfloat16().view(torch.int16).numpy()]


def _read_bf16(arrays: Arrays, reference: Tensor) -> Tensor:
    return reference + torch.from_numpy(arrays[0]).view(torch.bfloat16).float()


def _write_int8(values: Tensor, reference: Tensor) -> Arrays:
    blocks = _in_blocks(values - reference)
    steps = blocks.abs().amax(1) / LEVELS
    # A block that is not finite has a step that is not: the receiver sees it, and refuses the update by name.
    levels = (blocks / steps.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round().nan_to_num(0)
    return [levels.clamp(-LEVELS, LEVELS).to(torch.int8).flatten()[: values.numel()].numpy(), steps.numpy()]


def _read_int8(arrays: Arrays, reference: Tensor) -> Tensor:
    levels, steps = _in_blocks(torch.from_numpy(arrays[0]).float()), torch.from_numpy(arrays[1])
    return reference + (levels * steps[:, None]).flatten()[: reference.numel()]


def _in_blocks(values: Tensor) -> Tensor:
    """Return (N,) as (blocks, 256), the last one filled up with zeros."""
    return torch.nn.functional.pad(values, (0, -values.numel() % BLOCK)).view(-1, BLOCK)


CODECS = {
    codec.name: codec
    for codec in (
        Codec("lossless", False, lambda n: [(np.int32, n)], _write_lossless, _read_lossless),
        Codec("bf16", True, lambda n: [(np.int16, n)], _write_bf16, _read_bf16),
        Codec("int8", True, lambda n: [(np.int8, n), (np.float32, -(-n // BLOCK))], _write_int8, _read_int8),
    )
}


def codec_named(name: str) -> Codec | None:
    """Return a codec; None for `none`, which leaves messages as they are.

    Raises:
        CodecError: no such codec.
    """
    if name != "none" and name not in CODECS:
        raise CodecError(f"There is no codec {name!r}; expected none, {', '.join(CODECS)}.")
    return CODECS.get(name)


def _compress(array: NDArray) -> bytes:
    if array.size == 0:
        return b""
    shuffled = [blosc2.Filter.SHUFFLE]
    data = np.ascontiguousarray(array)
    return bytes(
        blosc2.compress2(data, typesize=data.itemsize, codec=blosc2.Codec.ZSTD, clevel=5, filters=shuffled, nthreads=1)
    )


def _decompress(data: bytes, dtype: DTypeLike, length: int) -> NDArray:
    array = np.zeros(length, dtype)
    if length == 0 and not data:
        return array
    try:
        n_bytes, n_compressed, _ = blosc2.get_cbuffer_sizes(data)
    except (ValueError, RuntimeError):
        n_bytes = n_compressed = -1
    if (n_bytes, n_compressed) != (array.nbytes, len(data)):
        raise CodecError(
            f"{len(data)} compressed bytes claim to be {n_compressed} that hold {n_bytes}; expected {array.nbytes}."
        )
    try:
        blosc2.decompress2(data, dst=array, nthreads=1)
    except (ValueError, RuntimeError) as error:
        raise CodecError(f"{len(data)} compressed bytes are damaged: {error}") from None
    return array
