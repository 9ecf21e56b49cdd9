"""A network small enough to test every property of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet

CANONICAL = ("T1", "T1ce", "T2", "FLAIR")


def build_network(
    modalities: Sequence[str] = CANONICAL,
    dim: int = 3,
    strides: Sequence[Sequence[int]] | None = None,
    seed: int = 0,
    **changes: Any,
) -> FedMEPDNet:
    """Return a three-stage network with 4, 6 and 8 features, initialised as nnU-Net would."""
    torch.manual_seed(seed)
    strides = strides or [[1] * dim, [2] * dim, [2] * dim]
    settings: dict[str, Any] = {
        "input_channels": len(modalities),
        "num_classes": 4,
        "n_stages": 3,
        "features_per_stage": [4, 6, 8],
        "conv_op": {2: nn.Conv2d, 3: nn.Conv3d}[dim],
        "kernel_sizes": [[3] * dim] * 3,
        "strides": strides,
        "n_conv_per_stage": 2,
        "n_conv_per_stage_decoder": 1,
        "conv_bias": True,
        "norm_op": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dim],
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "modalities": modalities,
        "canonical_modalities": CANONICAL,
        "n_anchors_per_class": 2,
    }
    network = FedMEPDNet(**{**settings, **changes})
    network.apply(network.initialize)
    return network


def give_anchors(network: FedMEPDNet, seed: int = 1) -> None:
    """Give every scale random anchors, all valid, and make calibration do something visible."""
    generator = torch.Generator().manual_seed(seed)
    anchors = [torch.randn(c.anchors.shape, generator=generator).to(c.anchors) for c in network.calibrations]
    network.set_anchors(anchors, torch.ones_like(network.calibrations[0].valid), in_use=True)
    for calibration in network.calibrations:
        if calibration.mode != "off":
            nn.init.xavier_uniform_(calibration.out.weight)
