"""State on disk: written atomically, verified when read.

A file is a magic word, the SHA-256 of the rest, and the rest in the safetensors format. Whatever byte changes, reading
it fails with a clear error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.federation.tensors import storable

MAGIC = b"FedMEPD1"
_DIGEST_LENGTH = 32


class StateFileError(FedMEPDError):
    """A state file cannot be written, or is not what was written."""


def save_state(file: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header; an interrupted write leaves the old file.

    Raises:
        StateFileError: the disk is full, or the folder cannot be written.
    """
    payload = safetensors.torch.save(storable(tensors), {"header": json.dumps(header)})
    write_atomically(file, MAGIC + hashlib.sha256(payload).digest() + payload)


def load_state(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the header of a state file.

    Raises:
        StateFileError: no such file, or its content is not what was written.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise StateFileError(f"State file {file} cannot be read: {error.strerror}.") from None
    start = len(MAGIC) + _DIGEST_LENGTH
    payload = data[start:]
    if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : start] != hashlib.sha256(payload).digest():
        raise StateFileError(
            f"State file {file} is damaged: its checksum does not fit its content ({len(data)} bytes). Is the disk "
            "failing? Remove the file: the run then goes on from the last state that is intact."
        )
    length = int.from_bytes(payload[:8], "little")
    header = json.loads(json.loads(payload[8 : 8 + length])["__metadata__"]["header"])
    return safetensors.torch.load(payload), header


def write_atomically(file: Path, data: bytes) -> None:
    """Write a file so that at any moment either the old content or the new one is there, also after a power failure.

    Raises:
        StateFileError: the disk is full, or the folder cannot be written.
    """
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StateFileError(
            f"{file} ({len(data)} bytes) cannot be written: {error.strerror}. The last good state is kept; make room "
            "or grant write access, then start the same command again: it goes on where it was."
        ) from None
