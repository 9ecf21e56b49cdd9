"""The published structure, at our plans and with our parameters: what an exact implementation has to beat.

Written from the description in Liu et al. 2025 (section 3) and of the backbone's fusion in Ding et al. 2021. It
computes what `FedMEPDNet` computes with `calibration="replace"` and heads of full width, but as the publication lays
it out:

- all encoders and auxiliary decoders run, whatever the site owns; absent modalities are multiplied by zero afterwards;
- every region of every modality exists as a tensor: (B, M, C, X, Y, Z) a region, weighted, summed, concatenated, mixed;
- attention projects queries, keys and values of every voxel for heads as wide as the features;
- region maps are upsampled to full resolution, where their loss is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fedmepd.networks.calibration import AnchorCalibration
from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet
from nnunet_fedmepd.networks.fusion import RegionAwareFusion, normalize_gates, region_probabilities
from nnunet_fedmepd.networks.normalization import InstanceNorm3d
from nnunet_fedmepd.networks.pointwise import PointwiseConv3d


class PublishedOutput(NamedTuple):
    """Logits at full resolution."""

    segmentation: Tensor
    region_maps: list[Tensor]
    auxiliary: list[Tensor]


class PublishedStructure(nn.Module):
    """Runs a full-modality `FedMEPDNet`'s parameters as published.

    Args:
        network: with every canonical modality and `calibration="replace"`.
        owned: modalities that the site has; the other channels are blank.
    """

    def __init__(self, network: FedMEPDNet, owned: tuple[str, ...]) -> None:
        super().__init__()
        self.network = in_plain_pytorch(network)
        self.register_buffer("mask", torch.tensor([m in owned for m in network.modalities]))

    def forward(self, images: Tensor) -> PublishedOutput:
        """Segment (B, N, X, Y, Z) images, blank where a modality is absent."""
        network, features, auxiliary = self.network, [], []
        for i, encoder in enumerate(network.encoders.values()):
            scales = encoder(images[:, i : i + 1])
            auxiliary.append(network.auxiliary([scale[:, None] for scale in scales])[:, 0])
            features.append(scales)
        weights = self.mask.to(images.dtype).view(1, -1, 1, 1, 1, 1)
        fused = [torch.stack(scale, 1) * weights for scale in zip(*features, strict=True)]
        segmentation, region_maps = self._decode(fused)
        size = images.shape[2:]
        upsampled = [functional.interpolate(m, size, mode="trilinear") for m in region_maps]
        return PublishedOutput(segmentation, upsampled, auxiliary)

    def _decode(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        decoder, region_maps, coarser = self.network.decoder, [], None
        for s in reversed(range(len(features))):
            fused, logits = fuse(decoder.fusions[s], features[s], self.mask, coarser)
            calibrated = attend(self.network.calibrations[s], fused)
            decoded = decoder.merges[s](calibrated if coarser is None else torch.cat([coarser, calibrated], 1))
            coarser = decoder.upsamplings[s - 1](decoded) if s else None
            region_maps.insert(0, logits)
        return decoder.segmentation_head(decoded), region_maps


def in_plain_pytorch(network: FedMEPDNet) -> FedMEPDNet:
    """Change a network's layers, in place, to the classes that PyTorch has for them; returns it."""
    plain = {InstanceNorm3d: nn.InstanceNorm3d, PointwiseConv3d: nn.Conv3d}
    for module in network.modules():
        module.__class__ = plain.get(type(module), type(module))
    return network


def fuse(module: RegionAwareFusion, features: Tensor, present: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return fused features (B, C, X, Y, Z) and the region map from (B, M, C, X, Y, Z), region by region."""
    conv = module.shortcut.conv  # every modality is there, so all columns of its weight are
    shortcut = module.shortcut.after(functional.conv3d(features.flatten(1, 2), conv.weight, conv.bias))
    context = shortcut if coarser is None else torch.cat([shortcut, coarser], 1)
    logits = module.region_head(module.region_features(context))
    regions = region_probabilities(logits.detach(), module.overlapping)
    pooled = [_pooled(features, regions[:, i]) for i in range(module.n_regions)]
    gates = _gates(module, torch.stack(pooled, 1), present)
    per_region = [
        (features * regions[:, i, None, None] * gates[:, i, :, None, None, None, None]).sum(1)
        for i in range(module.n_regions)
    ]
    return shortcut + module.mix(torch.cat(per_region, 1)), logits


def _pooled(features: Tensor, region: Tensor) -> Tensor:
    """Return (B, M * C), the mean over one region."""
    weighted = features * region[:, None, None]
    size = region.sum((1, 2, 3)) + 1e-6
    return (weighted.sum((3, 4, 5)) / size[:, None, None]).flatten(1)


def _gates(module: RegionAwareFusion, pooled: Tensor, present: Tensor) -> Tensor:
    gates = module.gates
    hidden = functional.leaky_relu(gates.hidden(pooled.flatten(1)[..., None]), 0.01)
    logits = gates.weigh(hidden).view(len(pooled), module.n_regions, -1)
    return normalize_gates(logits, present.expand(len(pooled), -1))


def attend(module: AnchorCalibration, features: Tensor) -> Tensor:
    """Return softmax(Q K / sqrt D) V over the anchors, in place of the features (B, C, X, Y, Z)."""
    voxels, anchors = features.flatten(2).transpose(1, 2), module.anchors.flatten(0, 1)
    heads = (module.n_heads, module.head_width)
    queries = module.query(voxels).unflatten(-1, heads).transpose(1, 2)  # (B, H, V, D)
    keys, values = (layer(anchors).unflatten(-1, heads).transpose(0, 1) for layer in (module.key, module.value))
    scores = queries @ keys.transpose(1, 2) * module.head_width**-0.5
    weights = functional.dropout(scores.softmax(-1), module.dropout, module.training)
    attended = module.out((weights @ values).transpose(1, 2).flatten(2))
    return attended.transpose(1, 2).unflatten(2, features.shape[2:])
