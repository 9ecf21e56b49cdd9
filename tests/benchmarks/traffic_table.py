"""Table 2: megabytes, error and processor time of one update, codec by codec, after steps on made-up images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from nnunet_fedmepd.federation.codecs import CODECS
from nnunet_fedmepd.federation.messages import HandOver, SiteUpdate
from nnunet_fedmepd.federation.packing import Reference
from nnunet_fedmepd.federation.sending import encode_update
from nnunet_fedmepd.federation.wire import decode
from nnunet_fedmepd.maths.parameters import select, uniform_masks
from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet
from tests.benchmarks.measurements import Measured
from tests.benchmarks.planned_networks import CANONICAL, fedmepd_net
from tests.benchmarks.step_table import SITES
from tests.benchmarks.training_steps import TrainingStep, made_up_batch, our_loss

PATCH, STEPS = 48, 6
# Megabytes: parameters as they are, by number of modalities; by codec, for one modality.
PLAIN, BY_CODEC = {1: 16.0, 2: 21.9, 4: 33.6}, {"lossless": None, "bf16": 5.0, "int8": 4.0}


def traffic_rows() -> Iterator[Measured]:
    """Yield the numbers of every codec for sites of 1, 2 and 4 modalities."""
    for n, modalities in SITES.items():
        hand_over, update, network = trained_update(modalities)
        groups = network.decoder_filters()
        for codec in ("none", *CODECS):
            started = time.process_time()
            data, residual = encode_update(update, codec, hand_over, {}, groups)
            decode(data, 10**9, Reference.of(hand_over, groups))
            seconds = time.process_time() - started
            target = PLAIN[n] if codec == "none" else BY_CODEC[codec] if n == 1 else None
            where = f"{n} of 4 modalities, {codec}"
            yield Measured(f"{where}: one update", len(data) / 1e6, "MB", target, False)
            yield Measured(f"{where}: encode and decode", seconds * 1e3, "ms", None, False)
            if CODECS[codec].is_lossy if codec in CODECS else False:
                error = norm(residual) / norm(change(hand_over, update))
                yield Measured(f"{where}: error / change", error, "", None, False)


def trained_update(modalities: Sequence[str]) -> tuple[HandOver, SiteUpdate, FedMEPDNet]:
    """Return what a site was handed over and what it sends after some steps of AdamW."""
    network = fedmepd_net(modalities, PATCH)
    before = parameters_of(network)
    images, targets = made_up_batch(PATCH, 1)
    own = images[:, [CANONICAL.index(m) for m in modalities]]
    step = TrainingStep("ours", network, own, targets, our_loss(len(targets)))
    for group in step.optimizer.param_groups:
        group["lr"] = 1e-3
    for _ in range(STEPS):
        step()
    after, parts, groups = parameters_of(network), network.parts(), network.decoder_filters()

    def split(parameters: Mapping[str, Tensor]) -> tuple:
        decoder = {name: parameters[name] for name in parts.fusion_decoder}
        encoders = {m: {name: parameters[name] for name in names} for m, names in parts.encoders.items()}
        return encoders, select(decoder, groups, uniform_masks(groups, True))

    importance = {group.name: torch.ones(group.n_filters) for group in groups}
    hand_over = HandOver("run", 1, *split(before), None, {}, 100, False)
    return hand_over, SiteUpdate("run", "site", 1, 10, *split(after), importance), network


def parameters_of(network: FedMEPDNet) -> dict[str, Tensor]:
    """Return copies of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def change(hand_over: HandOver, update: SiteUpdate) -> dict[str, Tensor]:
    """Return the exchanged parameters' change by the training."""
    after = {**update.decoder.values, **{n: t for own in update.encoders.values() for n, t in own.items()}}
    before = {**hand_over.decoder.values, **{n: t for own in hand_over.encoders.values() for n, t in own.items()}}
    return {name: after[name] - before[name] for name in after}


def norm(parameters: Mapping[str, Tensor]) -> float:
    """Return the Euclidean norm of all values together."""
    return float(torch.stack([tensor.double().square().sum() for tensor in parameters.values()]).sum().sqrt())
