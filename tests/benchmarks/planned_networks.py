"""Networks at the same plans: what nnU-Net's planners give for isotropic images and one patch size, widths and all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from torch import nn

from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet
from nnunet_fedmepd.nnunet_plugin.planner import FedMEPDPlanner

CANONICAL = ("T1ce", "FLAIR", "T1", "T2")
N_CLASSES = 4
_PLAIN_WIDTHS, _RESIDUAL_BLOCKS = (32, 320), (1, 3, 4, 6, 6, 6)


def planned(patch: int, base: int, largest: int) -> dict[str, Any]:
    """Return the arguments that nnU-Net plans for a U-Net with patches of `patch` voxels an axis."""
    _, strides, kernels, _, _ = get_pool_and_conv_props((1.0,) * 3, (patch,) * 3, 4, 999999)
    return {
        "n_stages": len(strides),
        "features_per_stage": [min(base * 2**stage, largest) for stage in range(len(strides))],
        "conv_op": nn.Conv3d,
        "kernel_sizes": [list(kernel) for kernel in kernels],
        "strides": [list(stride) for stride in strides],
        "num_classes": N_CLASSES,
        "n_conv_per_stage_decoder": 2,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": True,
    }


def fedmepd_net(modalities: Sequence[str], patch: int, **changes: Any) -> FedMEPDNet:
    """Return the network that FedMEPDPlanner plans, calibrating by random anchors."""
    arguments = planned(patch, FedMEPDPlanner.base_features, FedMEPDPlanner.max_features_3d)
    own = {"modalities": modalities, "canonical_modalities": CANONICAL, "n_conv_per_stage": 2}
    own |= {"auxiliary_scale": FedMEPDPlanner.auxiliary_scale, **changes}
    torch.manual_seed(0)
    network = FedMEPDNet(len(modalities), **arguments, **own)
    network.apply(network.initialize)
    anchors = [torch.randn(shape) for shape in network.anchor_shapes()]
    network.set_anchors(anchors, torch.ones(network.anchor_shapes()[0][:2], dtype=torch.bool), in_use=True)
    return network


def plain_conv_unet(n_channels: int, patch: int) -> nn.Module:
    """Return nnU-Net's own U-Net."""
    return PlainConvUNet(n_channels, n_conv_per_stage=2, **planned(patch, *_PLAIN_WIDTHS))


def residual_encoder_unet(n_channels: int, patch: int) -> nn.Module:
    """Return nnU-Net's ResEnc M."""
    arguments = {**planned(patch, *_PLAIN_WIDTHS), "n_conv_per_stage_decoder": 1}
    blocks = _RESIDUAL_BLOCKS[: arguments["n_stages"]]
    return ResidualEncoderUNet(n_channels, n_blocks_per_stage=blocks, **arguments)
