"""Which regions of a label map are scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_fedmepd.modalities import BRATS_LABELS, BRATS_REGIONS


def scored_regions(dataset_json: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return region -> its labels: the regions that dataset.json declares; those of BraTS where the labels are BraTS's;
    else every foreground label.
    """
    labels = {name: value for name, value in dataset_json["labels"].items() if name != "ignore"}
    if labels == BRATS_LABELS:
        return dict(BRATS_REGIONS)
    foreground = {name: value for name, value in labels.items() if name != "background"}
    return {name: _as_tuple(value) for name, value in foreground.items()}


def ignore_label(dataset_json: Mapping[str, Any]) -> int | None:
    """Return the label of voxels that nobody annotated, which are not scored; None if there is none."""
    value = dataset_json["labels"].get("ignore")
    return None if value is None else int(value)


def _as_tuple(value: Any) -> tuple[int, ...]:
    return tuple(int(label) for label in value) if isinstance(value, (list, tuple)) else (int(value),)
