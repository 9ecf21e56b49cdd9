"""What a network's voxels attend to.

Legend: L classes with background, K anchors a class, Y X the middle slice of a scale.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nnunet_fedmepd.networks.calibration import AnchorCalibration
from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet


@torch.no_grad()
def attend(network: FedMEPDNet, image: Float[Tensor, M * space]) -> list[Float[Tensor, "L K Y X"]] | None:
    """Return, per calibrated scale, high to low resolution, the attention of the middle slice's voxels to the anchors.

    It is the mean over the heads and sums to 1 over the anchors. None where the network does not calibrate.
    """
    calibrations = [module for module in network.calibrations if isinstance(module, AnchorCalibration)]
    if not any(calibration.mode != "off" and calibration.valid.any() for calibration in calibrations):
        return None
    deep_supervision = network.decoder.deep_supervision
    network.decoder.deep_supervision = True  # only then the fused features come out
    fused = network.eval()(image[None]).fused
    network.decoder.deep_supervision = deep_supervision
    slices = [features if features.ndim == 4 else features[:, :, features.shape[2] // 2] for features in fused]
    return [
        calibration.attention(features)[0].mean(0).unflatten(0, calibration.valid.shape)
        for calibration, features in zip(calibrations, slices, strict=True)
        if calibration.mode != "off"
    ]


def relative_entropy(attention: Float[Tensor, "L K Y X"]) -> Float[Tensor, "Y X"]:
    """Return each voxel's entropy of attention over that of uniform attention to the anchors that get any."""
    n_anchors = int((attention.flatten(2).amax(-1) > 0).sum())
    entropy = -torch.special.xlogy(attention, attention).sum((0, 1))
    return entropy / math.log(n_anchors) if n_anchors > 1 else torch.ones_like(entropy)
