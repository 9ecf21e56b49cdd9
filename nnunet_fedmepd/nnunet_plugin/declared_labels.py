"""The labels that dataset.json declares, as nnU-Net understands them, and whether a label map holds no others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from nnunet_fedmepd.errors import DatasetError

_SHOWN = 5


def declared_labels(description: Mapping[str, Any], source: Path) -> tuple[int, ...]:
    """Return every value that a label map may hold, the ignore label included.

    Args:
        description: dataset.json.
        source: its file, named in errors.

    Raises:
        DatasetError: nnU-Net cannot train with these labels.
    """
    labels = description["labels"]
    if not isinstance(labels, Mapping) or not all(map(_is_label, labels.values())):
        raise DatasetError(
            "dataset.json does not give every label its number",
            file=source,
            expected='names with whole numbers, such as {"background": 0, "tumour": 1}; a region lists several',
            found=json.dumps(labels),
            remedy="write the names before the numbers, and numbers without quotation marks",
        )
    if labels.get("background") != 0:
        raise DatasetError(
            "dataset.json does not declare the background",
            file=source,
            expected='a label "background" with the number 0',
            found=json.dumps(labels),
            remedy="add or correct it; label maps hold 0 where there is nothing",
        )
    _check_numbers(labels, source)
    _check_regions(labels, description.get("regions_class_order"), source)
    return tuple(sorted({number for label in labels.values() for number in _numbers(label)}))


def check_label_map(labels: np.ndarray, declared: Sequence[int], case: str, file: str) -> None:
    """Check that a label map holds declared labels only.

    Raises:
        DatasetError: naming the case, the file and the other values.
    """
    if (is_known := np.isin(labels, declared)).all():
        return
    others = np.unique(labels[~is_known])
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    raise DatasetError(
        "A label map holds values that dataset.json does not declare",
        case=case,
        file=file,
        expected=f"only {', '.join(map(str, declared))}",
        found=", ".join(f"{value:g}" for value in others[:_SHOWN]) + more,
        remedy="correct the label map, or declare the label in dataset.json, of all sites alike",
    )


def _check_numbers(labels: Mapping[str, Any], source: Path) -> None:
    ignored = labels.get("ignore")
    used = {number for name, label in labels.items() if name != "ignore" for number in _numbers(label)}
    if used != set(range(max(2, len(used)))) or ignored not in (None, len(used)):
        raise DatasetError(
            "The labels of dataset.json do not follow each other",
            file=source,
            expected="at least 0 and 1, whole numbers without a gap; where there is a label `ignore`, the next one",
            found=json.dumps(labels),
            remedy="renumber the labels, in dataset.json and in all label maps",
        )


def _check_regions(labels: Mapping[str, Any], order: Any, source: Path) -> None:
    """Check what only regions need: nnU-Net takes labels for regions as soon as one of them lists several numbers."""
    if not any(isinstance(label, list) and len(label) > 1 for label in labels.values()):
        return
    regions = [name for name, label in labels.items() if name != "ignore" and any(_numbers(label))]
    known = {number for name in regions for number in _numbers(labels[name])}
    if not isinstance(order, list) or len(order) != len(regions) or not all(n in known for n in order):
        raise DatasetError(
            "dataset.json does not say which label each of its regions paints",
            file=source,
            expected=f"regions_class_order with {len(regions)} labels: for {', '.join(regions)}, in this order",
            found="nothing" if order is None else json.dumps(order),
            remedy="add or correct regions_class_order; of regions inside each other the largest comes first",
        )


def _is_label(label: Any) -> bool:
    return _is_number(label) or (isinstance(label, list) and len(label) > 0 and all(map(_is_number, label)))


def _is_number(value: Any) -> TypeGuard[int]:
    return type(value) is int  # True is an int, too


def _numbers(label: int | list[int]) -> list[int]:
    return label if isinstance(label, list) else [label]
