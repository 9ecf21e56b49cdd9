"""One training step of every network that is compared: forward, loss, backward, clipping, AdamW."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn

from nnunet_fedmepd.networks.fedmepd_net import TrainingOutput
from nnunet_fedmepd.nnunet_plugin.losses import (
    FedMEPDLoss,
    FrequencyWeightedCE,
    FrequencyWeightedDiceCE,
    region_scale_weights,
)
from nnunet_fedmepd.nnunet_plugin.precision import autocast_for, ready_for_loss
from tests.benchmarks.planned_networks import (
    CANONICAL,
    N_CLASSES,
    fedmepd_net,
    plain_conv_unet,
    residual_encoder_unet,
)
from tests.benchmarks.published_network import PublishedOutput, PublishedStructure

# What makes a step cheaper and changes the model; off by default.
SWITCHES = {"auxiliary_scale": 2, "calibration_scale": 1}

LossOf = Callable[[Any, list[Tensor]], Tensor]


@dataclass
class TrainingStep:
    """A network that trains on one batch again and again.

    Attributes:
        name: in the table.
        network: the network.
        images: (B, M, X, Y, Z).
        targets: (B, 1, ...) labels, high to low resolution.
        loss: of output and targets.
        bf16: whether forward and loss run under bf16 autocast on a CPU.
    """

    name: str
    network: nn.Module
    images: Tensor
    targets: list[Tensor]
    loss: LossOf
    bf16: bool = False

    def __post_init__(self) -> None:
        self.device = self.images.device
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 1e-4)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.device.type == "cuda")

    def on_gpu(self, compiled: bool) -> TrainingStep:
        """Return the step as nnU-Net takes it on a GPU: in float16 with a scaled loss, compiled or not."""
        network = self.network.to("cuda")
        targets = [target.to("cuda") for target in self.targets]
        trained = torch.compile(network) if compiled else network
        return TrainingStep(self.name, trained, self.images.to("cuda"), targets, self.loss)

    def forward(self) -> Tensor:
        """Return the loss."""
        with autocast_for(self.device, self.bf16):
            output = self.network(self.images)
            ready = ready_for_loss(output) if isinstance(output, TrainingOutput) else output
            return self.loss(ready, self.targets)

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(self.forward()).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def compared_steps(modalities: Sequence[str], patch: int, batch: int) -> list[TrainingStep]:
    """Return the steps of a site: ours, with switches, each in bf16, too; the published; nnU-Net's two."""
    everything, targets = made_up_batch(patch, batch)
    own = everything[:, [CANONICAL.index(m) for m in modalities]].contiguous()
    blanked = torch.zeros_like(everything)
    blanked[:, [CANONICAL.index(m) for m in modalities]] = own
    as_published = {"calibration": "replace", "calibration_heads": 8, "calibration_dropout": 0.1, "auxiliary_scale": 0}
    published = fedmepd_net(CANONICAL, patch, **as_published)
    n = len(modalities)
    loss = our_loss(len(targets))
    return [
        TrainingStep("ours", fedmepd_net(modalities, patch), own, targets, loss),
        TrainingStep("ours, bf16", fedmepd_net(modalities, patch), own, targets, loss, bf16=True),
        TrainingStep("ours, switches", fedmepd_net(modalities, patch, **SWITCHES), own, targets, loss),
        TrainingStep("ours, switches, bf16", fedmepd_net(modalities, patch, **SWITCHES), own, targets, loss, bf16=True),
        TrainingStep(
            "published structure", PublishedStructure(published, tuple(modalities)), blanked, targets, published_loss
        ),
        TrainingStep("PlainConvUNet", plain_conv_unet(n, patch), own, targets, nnunet_loss),
        TrainingStep("ResEnc M", residual_encoder_unet(n, patch), own, targets, nnunet_loss),
    ]


def made_up_batch(patch: int, batch: int) -> tuple[Tensor, list[Tensor]]:
    """Return images of every canonical modality, and labels of a few boxes at every scale."""
    torch.manual_seed(1)
    labels = torch.zeros(batch, 1, patch, patch, patch)
    for label in range(1, N_CLASSES):
        margin = patch * label // 8
        labels[:, :, margin:-margin, margin:-margin, margin:-margin] = label
    n_scales = len(fedmepd_net(("T1ce",), patch).strides)
    targets = [labels[..., :: 2**s, :: 2**s, :: 2**s] for s in range(n_scales)]
    return torch.randn(batch, len(CANONICAL), patch, patch, patch), targets


def our_loss(n_targets: int) -> FedMEPDLoss:
    """Return the trainer's default loss."""
    weights = [0.3 * weight for weight in region_scale_weights(n_targets)]
    loss = _dice_and_cross_entropy()
    loss.ce = FrequencyWeightedCE()
    return FedMEPDLoss(loss, weights, 0.2)


def nnunet_loss(output: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Return nnU-Net's loss, which leaves out the two lowest scales."""
    weights = [2.0**-scale for scale in range(len(output) - 1)] + [0.0]
    loss = DeepSupervisionWrapper(_dice_and_cross_entropy(), [w / sum(weights) for w in weights])
    return loss(output, targets[: len(output)])


def published_loss(output: PublishedOutput, targets: list[Tensor]) -> Tensor:
    """Return the publication's: every output against the full-resolution labels, one after the other."""
    loss = FrequencyWeightedDiceCE()
    outputs = [output.segmentation, *output.region_maps, *output.auxiliary]
    return torch.stack([loss(logits, targets[0]) for logits in outputs]).sum()


def _dice_and_cross_entropy() -> DC_and_CE_loss:
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)
