"""The precision of a training step: nnU-Net's float16 on a GPU; float32 on a CPU, or bfloat16 where asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from nnunet_fedmepd.networks.fedmepd_net import TrainingOutput


def autocast_for(device: torch.device, cpu_bf16: bool) -> AbstractContextManager:
    """Return the context of forward pass and loss."""
    if device.type == "cuda":
        return torch.autocast("cuda")
    if device.type == "cpu" and cpu_bf16:
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()


def ready_for_loss(output: TrainingOutput) -> TrainingOutput:
    """Return a network's output as the loss takes it: on a CPU in float32, as sums over a patch need it."""
    if output.segmentation.device.type != "cpu":
        return output
    auxiliary = None if output.auxiliary is None else output.auxiliary.float()
    maps, fused = ([tensor.float() for tensor in scales] for scales in (output.region_maps, output.fused))
    return TrainingOutput(output.segmentation.float(), maps, auxiliary, fused)
