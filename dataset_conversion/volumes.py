"""Reading and writing single volumes: whole or not at all, geometry kept."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from dataset_conversion.nifti_bytes import check_nifti, unreadable
from nnunet_fedmepd.errors import DatasetError

# Two scans lie on one grid if they agree this closely. The first is what nnU-Net demands of spacings.
SPACING_TOLERANCE = 1e-5  # relative
ORIGIN_TOLERANCE_MM = 1e-2
DIRECTION_TOLERANCE = 1e-4  # of each direction cosine

_TOLERANCES = {
    "spacing": (SPACING_TOLERANCE, 0.0),
    "origin": (0.0, ORIGIN_TOLERANCE_MM),
    "direction": (0.0, DIRECTION_TOLERANCE),
}


@dataclass(frozen=True)
class Geometry:
    """Where a volume lies.

    Args:
        shape: voxels along x, y, z.
        spacing: mm.
        origin: centre of the first voxel, mm.
        direction: direction cosines, row by row.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @staticmethod
    def of(volume: SimpleITK.Image | SimpleITK.ImageFileReader) -> Geometry:
        """Return the geometry of a volume, or of a reader that has read a header."""
        return Geometry(volume.GetSize(), volume.GetSpacing(), volume.GetOrigin(), volume.GetDirection())

    def first_difference(self, other: Geometry) -> tuple[str, str, str] | None:
        """Return (property, own value, other's value) of what differs beyond the tolerance, None if nothing does."""
        if self.shape != other.shape:
            return "shape", _text(self.shape), _text(other.shape)
        for name, (relative, absolute) in _TOLERANCES.items():
            own, others = getattr(self, name), getattr(other, name)
            if not np.allclose(own, others, rtol=relative, atol=absolute):
                return name, _text(own), _text(others)
        return None


def read_volume(file: Path, case: str) -> SimpleITK.Image:
    """Return a three-dimensional volume with one number per voxel.

    Raises:
        DatasetError: the file cannot be read, is incomplete, holds NaN or infinite voxels, or something else.
    """
    check_nifti(file, case)
    try:
        volume = SimpleITK.ReadImage(str(file))
    except RuntimeError as error:
        raise unreadable(file, case, str(error).strip().splitlines()[-1]) from error
    components = volume.GetNumberOfComponentsPerPixel()
    if volume.GetDimension() != 3 or components != 1 or "complex" in volume.GetPixelIDTypeAsString():
        raise DatasetError(
            "Not a plain volume",
            case=case,
            file=file,
            expected="3 dimensions and one real number per voxel",
            found=f"{volume.GetDimension()} dimensions, {components} x {volume.GetPixelIDTypeAsString()} per voxel",
        )
    return volume


def write_volume(volume: SimpleITK.Image, file: Path) -> None:
    """Write a volume, compressed where the format allows it.

    Raises:
        OSError: it cannot be written.
    """
    try:
        SimpleITK.WriteImage(volume, str(file), useCompression=True)
    except RuntimeError as error:
        raise OSError(f"cannot write {file}: {str(error).strip().splitlines()[-1]}") from error


def copy_compressed(source: Path, target: Path) -> None:
    """Write `source` (.nii.gz or .nii) to `target` (.nii.gz), every byte of header and voxels as it is."""
    if source.suffix == ".gz":
        shutil.copyfile(source, target)
        return
    with (
        source.open("rb") as plain,
        target.open("wb") as raw,
        # Neither name nor time in the stream: the same voxels give the same file.
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as compressed,
    ):
        shutil.copyfileobj(plain, compressed)


def write_blank(geometry_of: Path, target: Path) -> None:
    """Write an all-zero volume with the geometry of the file `geometry_of`."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(geometry_of))
    reader.ReadImageInformation()
    blank = SimpleITK.Image(reader.GetSize(), SimpleITK.sitkUInt8)
    blank.SetSpacing(reader.GetSpacing())
    blank.SetOrigin(reader.GetOrigin())
    blank.SetDirection(reader.GetDirection())
    write_volume(blank, target)


def unknown_labels(segmentation: SimpleITK.Image, known: Mapping[int, int]) -> dict[float, int]:
    """Return the values that are no key of `known`, and how many voxels have each."""
    values = SimpleITK.GetArrayViewFromImage(segmentation)
    unknown, counts = np.unique(values[~np.isin(values, list(known))], return_counts=True)
    return dict(zip(unknown.tolist(), counts.tolist(), strict=True))


def check_labels(segmentation: SimpleITK.Image, known: Mapping[int, int], file: Path, case: str) -> None:
    """Check that every voxel has a label that is a key of `known`.

    Raises:
        DatasetError: some do not.
    """
    if unknown := unknown_labels(segmentation, known):
        raise DatasetError(
            "Unknown label value",
            case=case,
            file=file,
            expected=f"only {', '.join(map(str, known))}",
            found=", ".join(f"{value:g} ({count} voxels)" for value, count in unknown.items()),
            remedy="check that the layout fits the data, or correct the segmentation",
        )


def relabelled(segmentation: SimpleITK.Image, mapping: Mapping[int, int]) -> SimpleITK.Image:
    """Return the segmentation with every label replaced by `mapping[label]`, as 8-bit numbers, geometry kept."""
    old = SimpleITK.GetArrayViewFromImage(segmentation)
    new = np.zeros(old.shape, np.uint8)
    for old_label, new_label in mapping.items():
        new[old == old_label] = new_label
    result = SimpleITK.GetImageFromArray(new)
    result.CopyInformation(segmentation)
    return result


def _text(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
