"""The federation's first model: a network with every modality, initialised by a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from nnunet_fedmepd.maths.parameters import FilterGroup
from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet


@dataclass(frozen=True)
class InitialModel:
    """Exchanged parameters of a fresh network, and their roles.

    Attributes:
        encoders: modality -> parameters.
        decoder: the fusion decoder.
        groups: its filters.
        anchor_shapes: (L, K, C) of each scale, high to low resolution.
    """

    encoders: dict[str, dict[str, Tensor]]
    decoder: dict[str, Tensor]
    groups: list[FilterGroup]
    anchor_shapes: tuple[tuple[int, int, int], ...]


def initial_model(
    plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any], seed: int
) -> InitialModel:
    """Return the first model of the federation that these plans, of any of its sites, belong to."""
    manager = PlansManager(dict(plans))
    chosen = manager.get_configuration(configuration)
    canonical = chosen.network_arch_init_kwargs["canonical_modalities"]
    heads = manager.get_label_manager(dict(dataset_json)).num_segmentation_heads
    torch.manual_seed(seed)
    network: FedMEPDNet = get_network_from_plans(
        chosen.network_arch_class_name,
        {**chosen.network_arch_init_kwargs, "modalities": canonical},
        chosen.network_arch_init_kwargs_req_import,
        len(canonical),
        heads,
        allow_init=True,
        deep_supervision=True,
    )
    parameters, parts = {n: p.detach().clone() for n, p in network.named_parameters()}, network.parts()
    return InitialModel(
        {modality: {name: parameters[name] for name in names} for modality, names in parts.encoders.items()},
        {name: parameters[name] for name in parts.fusion_decoder},
        network.decoder_filters(),
        network.anchor_shapes(),
    )
