"""Reads and writes label maps by nnU-Net's own readers and writers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

# nnU-Net's readers of 2D images give the axis that these lack a step so many times the others'.
_STEP_OF_NO_AXIS = 999


@dataclass(frozen=True)
class LabelMap:
    """A label map.

    Attributes:
        labels: (X, Y, Z).
        spacing_mm: of the three axes; a 2D image is 1 mm thick.
        properties: the reader's, which the writer needs.
    """

    labels: Int64[np.ndarray, "X Y Z"]
    spacing_mm: tuple[float, ...]
    properties: dict[str, Any]


class LabelFiles:
    """Label maps in the format of a model's images.

    Args:
        plans: of the model.
    """

    def __init__(self, plans: Mapping[str, Any]) -> None:
        self._files = PlansManager(dict(plans)).image_reader_writer_class()

    def read(self, file: Path) -> LabelMap:
        """Return a label map."""
        labels, properties = self._files.read_seg(str(file))
        return LabelMap(labels[0].astype(np.int64), _spacing_mm(properties["spacing"]), properties)

    def write(self, labels: Integer[np.ndarray, "X Y Z"], properties: dict[str, Any], file: Path) -> None:
        """Write a label map as nnU-Net does, atomically; the folder is made.

        Args:
            labels: to write.
            properties: of the image or label map whose space it lies in.
            file: with nnU-Net's ending.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"partial.{file.name}")  # the ending tells the writer the format
        self._files.write_seg(labels, str(partial), properties)
        partial.replace(file)


def _spacing_mm(spacing: Sequence[float]) -> tuple[float, ...]:
    first, *others = (float(step) for step in spacing)
    return (1.0 if first >= _STEP_OF_NO_AXIS * max(others) else first, *others)
