"""The fusion decoder's layers as people speak of them: all filters of one part at one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_fedmepd.maths.parameters import FilterGroup

# In the order of the forward pass.
PARTS = ("upsampling", "region map", "fusion", "merge", "output")


@dataclass(frozen=True)
class DecoderLayer:
    """One layer.

    Attributes:
        scale: 0 is the full resolution.
        part: one of `PARTS`.
        groups: names of its filter groups.
        n_filters: in all of them.
    """

    scale: int
    part: str
    groups: tuple[str, ...]
    n_filters: int


def decoder_layers(groups: Sequence[FilterGroup]) -> list[DecoderLayer]:
    """Return the layers of the filters of `FedMEPDNet.decoder_filters()`, in the order of the forward pass."""
    members: dict[tuple[int, str], list[FilterGroup]] = {}
    for group in groups:
        members.setdefault(_place(group.name), []).append(group)
    places = sorted(members, key=lambda place: (-place[0], PARTS.index(place[1])))
    return [
        DecoderLayer(*place, tuple(g.name for g in members[place]), sum(g.n_filters for g in members[place]))
        for place in places
    ]


def _place(group_name: str) -> tuple[int, str]:
    """Return scale and part of a filter group by the names of `FusionDecoder`'s modules."""
    _, module, *inside = group_name.split(".")
    if module == "segmentation_head":
        return 0, "output"
    if module == "fusions":
        return int(inside[0]), "region map" if inside[1].startswith("region_") else "fusion"
    return int(inside[0]), {"merges": "merge", "upsamplings": "upsampling"}[module]
