"""Which slices of which parameters form a filter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FilterGroup:
    """The filters of one convolution: filter j is slice j of every member along the member's axis."""

    name: str
    members: tuple[tuple[str, int], ...]
    n_filters: int
