"""Writing a generated data set: every file and every case's folder appears whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK
from jaxtyping import Shaped

from nnunet_fedmepd.demo_data.layouts import Layout
from nnunet_fedmepd.demo_data.phantom import PhantomCase


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically; its folder is made if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.partial")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, file)


def write_table(file: Path, header: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV file atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(file, text.getvalue())


def write_case(phantom: PhantomCase, case: str, layout: Layout, spacing_mm: float, folder: Path, partial: Path) -> None:
    """Write the files of a case into `folder` by way of the folder `partial`; both are replaced if they exist."""
    for leftover in (partial, folder):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir(parents=True)
    for modality, image in phantom.images.items():
        _write_nifti(partial / layout.name_image(case, modality), image, spacing_mm)
    _write_nifti(partial / layout.name_labels(case), layout.encode_labels(phantom.labels), spacing_mm)
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, folder)


def _write_nifti(file: Path, voxels: Shaped[np.ndarray, "Z Y X"], spacing_mm: float) -> None:
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing([float(spacing_mm)] * 3)
    image.SetOrigin([0.0, -(voxels.shape[1] - 1) * float(spacing_mm), 0.0])  # as in BraTS: (0, -239, 0) at 1 mm
    SimpleITK.WriteImage(image, str(file), True)
