"""The states of coordinator and site as flat tensors and a header, for `storage`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nnunet_fedmepd.federation.coordinator import CoordinatorState
from nnunet_fedmepd.federation.roster import Model
from nnunet_fedmepd.federation.site import SiteState
from nnunet_fedmepd.federation.tensors import put, put_list, put_nested, take, take_list, take_nested
from nnunet_fedmepd.maths.anchors import AnchorState
from nnunet_fedmepd.maths.personalization import Personalization

_PERSONALIZATION = ("patience", "importance", "shared", "lead_average", "site_average")


def flatten_coordinator(state: CoordinatorState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a coordinator's state as tensors and header; `restore_coordinator` is the inverse."""
    tensors = put_nested("encoder", state.model.encoders) | put("decoder", state.model.decoder)
    tensors |= put("share_denominator", state.share_denominators)
    header = {"round_number": state.round_number, "n_cases": dict(state.n_cases), "counted": sorted(state.counted)}
    anchor_tensors, membership = flatten_anchors(state.anchors)
    return tensors | anchor_tensors, header | {"membership": membership}


def restore_coordinator(tensors: Mapping[str, Tensor], header: Mapping[str, Any], model: Model) -> CoordinatorState:
    """Return a coordinator's state; `model` gives the filter groups, which follow from the network."""
    return CoordinatorState(
        header["round_number"],
        replace(model, encoders=take_nested(tensors, "encoder"), decoder=take(tensors, "decoder")),
        restore_anchors(tensors, header["membership"]),
        take(tensors, "share_denominator"),
        header["n_cases"],
        frozenset(header["counted"]),
    )


def flatten_site(state: SiteState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a site's state as tensors and header; `restore_site` is the inverse."""
    tensors = put("received", state.received) | put("update", state.update) | put("sent", state.sent)
    tensors |= put("residual", state.residual)
    if state.message:
        tensors["message"] = torch.frombuffer(bytearray(state.message), dtype=torch.uint8)
    if state.personalization is not None:
        for name in _PERSONALIZATION:
            tensors |= put(name, getattr(state.personalization, name))
    return tensors, {"round_number": state.round_number, "personalized": state.personalization is not None}


def restore_site(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> SiteState:
    """Return a site's state."""
    personalization = None
    if header["personalized"]:
        personalization = Personalization(**{name: take(tensors, name) for name in _PERSONALIZATION})
    received, update, sent, residual = (take(tensors, name) for name in ("received", "update", "sent", "residual"))
    message = tensors["message"].numpy().tobytes() if "message" in tensors else b""
    return SiteState(header["round_number"], personalization, received, update, sent, residual, message)


def flatten_anchors(state: AnchorState | None) -> tuple[dict[str, Tensor], dict[str, list[int]] | None]:
    """Return anchors as tensors, and their members; `restore_anchors` is the inverse."""
    if state is None:
        return {}, None
    tensors = put_list("anchor_value", state.anchors) | {"anchor_valid": state.valid}
    return tensors, {case: list(numbers) for case, numbers in state.membership.items()}


def restore_anchors(tensors: Mapping[str, Tensor], membership: Mapping[str, list[int]] | None) -> AnchorState | None:
    """Return anchors from tensors and members."""
    if membership is None:
        return None
    members = {case: tuple(numbers) for case, numbers in membership.items()}
    return AnchorState(take_list(tensors, "anchor_value"), tensors["anchor_valid"], members)
