"""Reads training cases, and checks their files.

SimpleITK reads a NIfTI file that was cut off without complaint, and leaves the lost voxels 0. So every file is compared
with what its header promises.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.nnunet_plugin.declared_labels import check_label_map
from nnunet_fedmepd.nnunet_plugin.raw_dataset import CaseFiles

_CHUNK_BYTES = 2**20


def read_case(
    case: str, files: CaseFiles, reader: BaseReaderWriter, declared: Sequence[int]
) -> tuple[np.ndarray, dict[str, Any], np.ndarray]:
    """Return a case's images (M, X, Y, Z), what the reader says about them, and its label map (1, X, Y, Z).

    Raises:
        DatasetError: a file cannot be read or is cut off, the files do not fit together, or the label map holds values
            that are not `declared`.
    """
    _check_headers(case, files)
    try:
        images, properties = reader.read_images(files.images)
    except Exception as error:  # readers raise what they like
        raise _unreadable(case, _damaged(files.images, reader), error) from error
    labels = _read_labels(case, files, reader, declared)
    _check_alike(case, "size", {files.images[0]: images.shape[1:], files.label: labels.shape[1:]})
    return images, properties, labels


def check_case(case: str, files: CaseFiles, reader: BaseReaderWriter, declared: Sequence[int]) -> None:
    """Check a case as `read_case` does, but of images in NIfTI files only the headers, and that nothing is cut off.

    Raises:
        DatasetError: as `read_case`.
    """
    if _check_headers(case, files):
        _read_labels(case, files, reader, declared)
    else:
        read_case(case, files, reader, declared)


def _read_labels(case: str, files: CaseFiles, reader: BaseReaderWriter, declared: Sequence[int]) -> np.ndarray:
    try:
        labels, _ = reader.read_seg(files.label)
    except Exception as error:  # readers raise what they like
        raise _unreadable(case, files.label, error) from error
    check_label_map(labels, declared, case, files.label)
    return labels


def _damaged(images: Sequence[str], reader: BaseReaderWriter) -> str:
    """Return the first image that cannot be read by itself, the first of all where each can."""
    for image in images:
        try:
            reader.read_images((image,))
        except Exception:
            return image
    return images[0]


def _unreadable(case: str, file: str, error: Exception) -> DatasetError:
    return DatasetError(
        "A training case cannot be read",
        case=case,
        file=file,
        expected="files that nnU-Net can read, all of one size and spacing",
        found=" ".join(str(error).split()) or type(error).__name__,
        remedy="replace the damaged file, or remove the case",
    )


@dataclass(frozen=True)
class _Header:
    """What a NIfTI file says about itself: voxels and mm along its axes, bytes of header and voxels in all."""

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    n_bytes: int


def _check_headers(case: str, files: CaseFiles) -> bool:
    """Check the headers of a case's NIfTI files, and return whether all of its files are such."""
    headers = {file: header for file in (*files.images, files.label) if (header := _header(file))}
    for file, header in headers.items():
        if not _is_whole(Path(file), header.n_bytes):
            raise DatasetError(
                "A file of a training case is cut off",
                case=case,
                file=file,
                expected=f"{header.n_bytes} bytes of header and voxels",
                found="fewer",
                remedy="copy the file again, or remove the case",
            )
    _check_alike(case, "size", {file: header.size for file, header in headers.items()})
    images = {file: header.spacing_mm for file, header in headers.items() if file != files.label}
    _check_alike(case, "spacing", images)
    return len(headers) == len(files.images) + 1


def _header(file: str) -> _Header | None:
    """Return the header of a NIfTI file; None where it is none, or cannot be read."""
    if not file.endswith((".nii", ".nii.gz")):
        return None
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
        bits, start = (float(reader.GetMetaData(key)) for key in ("bitpix", "vox_offset"))
    except RuntimeError:
        return None
    size = reader.GetSize()
    return _Header(size, reader.GetSpacing(), int(start) + math.prod(size) * int(bits) // 8)


def _is_whole(file: Path, n_bytes: int) -> bool:
    if file.suffix != ".gz":
        return file.stat().st_size >= n_bytes
    with file.open("rb") as compressed:
        compressed.seek(-4, os.SEEK_END)
        if int.from_bytes(compressed.read(), "little") == n_bytes % 2**32:
            return True
    # The last bytes say how much a file of one part holds. One of several parts has to be unpacked.
    try:
        with gzip.open(file) as unpacked:
            while n_bytes > 0 and (chunk := unpacked.read(_CHUNK_BYTES)):
                n_bytes -= len(chunk)
    except (OSError, EOFError, zlib.error):
        pass
    return n_bytes <= 0


def _check_alike(case: str, what: str, found: Mapping[str, Sequence[float]]) -> None:
    """Check that the files of a case agree, whichever way their axes are turned: a reader may turn them back."""
    first = next(iter(found), "")
    for file, values in found.items():
        if len(values) != len(found[first]) or not np.allclose(sorted(values), sorted(found[first])):
            raise DatasetError(
                f"The files of a training case differ in {what}",
                case=case,
                file=file,
                expected=f"{_listed(found[first])}, as {Path(first).name} has",
                found=_listed(values),
                remedy="resample the images and the label map of the case to one grid, or remove the case",
            )


def _listed(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
