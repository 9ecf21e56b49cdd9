"""Tiny BraTS releases: 8x9x7 voxels, oblique, anisotropic, off the origin."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import SimpleITK

from dataset_conversion.layouts import Layout, find_layout

SHAPE_ZYX = (7, 9, 8)
SPACING_MM = (1.25, 0.9375, 2.5)
ORIGIN_MM = (-31.5, 12.25, 7.0)
DIRECTION = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)  # turned about z


def volume(voxels: np.ndarray) -> SimpleITK.Image:
    """Return voxels (Z, Y, X) on the grid of every case here."""
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing(SPACING_MM)
    image.SetOrigin(ORIGIN_MM)
    image.SetDirection(DIRECTION)
    return image


def scan_voxels(seed: str, dtype: type = np.int16) -> np.ndarray:
    generator = np.random.default_rng(zlib.crc32(seed.encode()))
    return generator.integers(1, 1000, SHAPE_ZYX).astype(dtype)


def label_voxels(labels: Iterable[int]) -> np.ndarray:
    """Return a label map whose first voxels along x, at y = z = 0, are `labels`; the others are 0."""
    voxels = np.zeros(SHAPE_ZYX, np.uint8)
    voxels[0, 0, : len(list(labels))] = list(labels)
    return voxels


def write(image: SimpleITK.Image, file: Path) -> Path:
    SimpleITK.WriteImage(image, str(file))
    return file


def read_voxels(file: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def grid(file: Path) -> tuple[tuple[float, ...], ...]:
    image = SimpleITK.ReadImage(str(file))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


class SmallRelease:
    """A release in a folder, to which a test adds cases and then damages them.

    Args:
        root: folder of the case folders.
        layout: name of the release.
    """

    def __init__(self, root: Path, layout: str = "brats2020") -> None:
        self.root = root
        self.layout: Layout = find_layout(layout)
        root.mkdir(parents=True, exist_ok=True)

    def add(
        self, case: str, *, without: Iterable[str] = (), ending: str = ".nii.gz", labels: Iterable[int] | None = None
    ) -> Path:
        """Write a case and return its folder; `without` names modalities, or `seg`, that it lacks."""
        folder = self.root / case
        folder.mkdir(parents=True)
        for modality in self.layout.suffixes:
            if modality not in without:
                write(volume(scan_voxels(case + modality)), self.scan(case, modality, ending))
        if "seg" not in without:
            write(volume(label_voxels(self.layout.labels if labels is None else labels)), self.seg(case, ending))
        return folder

    def scan(self, case: str, modality: str, ending: str = ".nii.gz") -> Path:
        return self.root / case / f"{self.layout.scan_name(case, modality)}{ending}"

    def seg(self, case: str, ending: str = ".nii.gz") -> Path:
        return self.root / case / f"{self.layout.possible_segmentation_names(case)[0]}{ending}"
