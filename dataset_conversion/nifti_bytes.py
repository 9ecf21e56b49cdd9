"""What a NIfTI-1 file holds, byte by byte, since SimpleITK does not say when something is wrong with it.

SimpleITK reads a truncated or corrupted file without complaint and leaves the lost voxels arbitrary; NaN and infinite
voxels it turns into zeros.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_fedmepd.errors import DatasetError

_HEADER_BYTES = 348
_FLOAT_TYPES = {16: "f4", 64: "f8"}  # NIfTI data type code -> numpy type; other real types cannot hold NaN


@dataclass(frozen=True)
class _Header:
    byte_order: str
    shape: tuple[int, ...]
    data_type: int
    bits_per_voxel: int
    voxels_start: int

    @property
    def file_bytes(self) -> int:
        return self.voxels_start + math.prod(self.shape) * self.bits_per_voxel // 8


def check_nifti(file: Path, case: str) -> None:
    """Check that a file (.nii.gz or .nii) is complete, undamaged where its checksum tells, and holds finite numbers.

    Raises:
        DatasetError: it is not.
    """
    data = _read(file, case)
    header = _header(data)
    if header is None:
        raise unreadable(file, case, "no sound NIfTI-1 header")
    if len(data) < header.file_bytes:
        raise unreadable(file, case, f"{len(data)} bytes, where the header promises {header.file_bytes}")
    if header.data_type in _FLOAT_TYPES:
        _check_finite(data, header, file, case)


def _read(file: Path, case: str) -> bytes:
    try:
        data = file.read_bytes()
        return gzip.decompress(data) if file.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(file, case, str(error)) from error


def _header(data: bytes) -> _Header | None:
    for order in "<", ">":
        if len(data) >= _HEADER_BYTES and struct.unpack_from(f"{order}i", data)[0] == _HEADER_BYTES:
            number, *sizes = struct.unpack_from(f"{order}8h", data, 40)
            shape = tuple(sizes[: max(number, 0)])
            data_type, bits_per_voxel = struct.unpack_from(f"{order}2h", data, 70)
            (voxels_start,) = struct.unpack_from(f"{order}f", data, 108)
            if shape and min(shape) > 0 and voxels_start >= _HEADER_BYTES:
                return _Header(order, shape, data_type, bits_per_voxel, int(voxels_start))
    return None


def _check_finite(data: bytes, header: _Header, file: Path, case: str) -> None:
    number_type = np.dtype(f"{header.byte_order}{_FLOAT_TYPES[header.data_type]}")
    values = np.frombuffer(data, number_type, count=math.prod(header.shape), offset=header.voxels_start)
    finite = np.isfinite(values)
    if finite.all():
        return
    first = np.unravel_index(int(np.argmin(finite)), header.shape, order="F")
    raise DatasetError(
        "Voxels that are not numbers",
        case=case,
        file=file,
        expected="finite numbers",
        found=f"{np.isnan(values).sum()} NaN, {np.isinf(values).sum()} infinite; the first at x,y,z = "
        + ",".join(map(str, first)),
        remedy="repair the scan, or remove its file to treat it as absent",
    )


def unreadable(file: Path, case: str, reason: str) -> DatasetError:
    """Return the error that says that a file cannot be read, and why."""
    return DatasetError(
        "Unreadable or truncated volume",
        case=case,
        file=file,
        expected="a complete NIfTI file (.nii.gz or .nii)",
        found=reason,
        remedy="fetch the file again",
    )
