"""What became of a site's filters in a round, layer by layer, small enough for the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nnunet_fedmepd.networks.decoder_layers import DecoderLayer

_DECIMALS = 3


def layer_report(
    layers: Sequence[DecoderLayer],
    shared_before: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
    agreement: Mapping[str, Tensor],
) -> dict[str, Any]:
    """Return, in the order of the layers, `personal` filters, and where they were judged their mean `agreement`.

    Args:
        layers: of the decoder.
        shared_before: filter group -> (F,) bool, before the last round was judged.
        shared: the same, since it was judged.
        agreement: filter group -> (F,) c_ij by which it was judged; empty where it was not.

    Returns:
        agreement is a mean over the filters that were shared; None for a layer without any.
    """
    report: dict[str, Any] = {"personal": [int((~_together(shared, layer)).sum()) for layer in layers]}
    if agreement:
        report["agreement"] = [_mean(_together(agreement, layer)[_together(shared_before, layer)]) for layer in layers]
    return report


def _together(values: Mapping[str, Tensor], layer: DecoderLayer) -> Tensor:
    return torch.cat([values[group] for group in layer.groups])


def _mean(cosines: Tensor) -> float | None:
    return round(cosines.mean().item(), _DECIMALS) if cosines.numel() else None
