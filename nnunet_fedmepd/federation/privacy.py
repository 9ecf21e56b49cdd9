"""Differential privacy of what a site sends, made at the site, before anything is encoded.

    sent = handed over + clip(trained - handed over) + noise

The difference over all arrays that an update sends is one vector: it is scaled down to the clipping norm C, and gets
Gaussian noise of standard deviation `noise_multiplier * C` in every number. This is local differential privacy: nobody
needs to be trusted with anything before it is noised, neither the coordinator nor other sites.

**Neighbours** are any two data sets of a site with equally many training cases: what holds is that the coordinator,
with everybody's help, can hardly tell from all of a site's updates which of the two it has. One update is the site's
whole participation in a round, so its cases are protected together, not only one by one. Two clipped differences are at
most 2 C apart: that is the sensitivity (`accounting`). Rounds add up, whatever is done with earlier updates meanwhile.

**What else is in an update** follows from noised updates, what was handed over and the number of cases, and costs
nothing more: which filters are personal and the importance of the others are judged by the update as it was sent (see
`as_judged`), a codec's rounding and its error feedback come after the noise, and the report of a turn keeps training
loss and pseudo Dice to the site. **Public** are the number of training cases, what planning together tells, the times
at which a site answers, and whether it does.

**A lead's update** is protected in the same way. Its anchors, means of its features of which no bound is known, are
not: a federation file with both is refused. `protect_leads = false` leaves leads as they are, anchors included, where
their data are public or their patients agreed; the other sites are protected all the same.

**A training that diverged** sends no change, noised as any other: that it diverged is nobody's business.

Noise is real-valued, computed in float64 and rounded to float32 in sum with what was handed over. That attacks on the
gaps between floating-point numbers (Mironov, CCS 2012) find nothing below that rounding is plausible, and not proved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod

import numpy as np
import torch
from torch import Tensor

from nnunet_fedmepd.config.federation import PrivacyTable
from nnunet_fedmepd.federation.messages import HandOver, LeadUpdate, SiteUpdate, Update
from nnunet_fedmepd.federation.noise import gaussian_noise, noise_key
from nnunet_fedmepd.federation.packing import Reference
from nnunet_fedmepd.federation.site import SiteState
from nnunet_fedmepd.federation.tensors import take, take_nested
from nnunet_fedmepd.federation.wire import tensors_of
from nnunet_fedmepd.maths.parameters import FilterGroup, FilterSubset, ParameterError, check_alike, dense

_PARAMETERS = ("encoder", "decoder", "decoder_filters")


@dataclass(frozen=True)
class Norms:
    """What clipping and noise did to an update; never leaves the site.

    Attributes:
        change: |trained - handed over|; not finite where the training diverged.
        noise: |noise|.
    """

    change: float
    noise: float


def protect(
    update: Update, hand_over: HandOver, groups: Sequence[FilterGroup], privacy: PrivacyTable, secret: bytes
) -> tuple[Update, Norms]:
    """Return an update with its difference from what was handed over clipped and noised, the same for the same update.

    Args:
        update: after the site's training, judged by protected updates so far.
        hand_over: that the training started from.
        groups: filters of the fusion decoder.
        privacy: how much is clipped and noised.
        secret: of the site, never sent.

    Raises:
        ParameterError: the hand-over lacks arrays that the update sends, or there are anchors.
    """
    if isinstance(update, LeadUpdate) and update.anchors is not None:
        raise ParameterError("Anchors cannot be protected; expected an update without them.")
    everything = tensors_of(update)
    flat = {name: everything[name] for name in sorted(everything) if name.split("/", 1)[0] in _PARAMETERS}
    reference = Reference.of(hand_over, groups).flat(take(everything, "decoder_masks"))
    known = {name: reference[name] for name in flat if name in reference}
    check_alike(known, flat, "The parameters that were handed over")
    before, after = (_joined(list(tensors.values())) for tensors in ({name: known[name] for name in flat}, flat))
    change = after - before
    norm = _norm(change)
    clipped = change * (privacy.clipping_norm / max(norm, privacy.clipping_norm))
    if not isfinite(norm):
        clipped = torch.zeros_like(change)
    key = noise_key(secret, _digest(update, flat, privacy, before, clipped))
    noise = privacy.clipping_norm * privacy.noise_multiplier * gaussian_noise(key, change.numel())
    sent = _separated((before + clipped + noise).float(), flat)
    return _with_parameters(update, sent), Norms(norm, _norm(noise))


def as_judged(state: SiteState, update: SiteUpdate, hand_over: HandOver, groups: Sequence[FilterGroup]) -> SiteState:
    """Return a site's state with the change of the decoder by its training as the protected update tells it.

    The next round judges by it, so that the choice of personal filters and the importance tell nothing more.

    Args:
        state: after the round.
        update: protected.
        hand_over: of the round.
        groups: filters of the fusion decoder.
    """
    if state.personalization is None or update.decoder is None:
        return state
    masks = update.decoder.masks
    before = take(Reference.of(hand_over, groups).flat(masks), "decoder_filters")
    change = {name: values - before[name] for name, values in update.decoder.values.items()}
    return replace(state, update=dense(FilterSubset(change, masks), groups))


def _norm(values: Tensor) -> float:
    """Return the Euclidean norm, the same to the bit on any number of threads: the noise depends on every bit."""
    return float(np.sqrt(np.square(values.numpy()).sum()))


def _digest(update: Update, flat: dict[str, Tensor], privacy: PrivacyTable, before: Tensor, clipped: Tensor) -> bytes:
    """Return a digest of all that the noise hides and is added to; the round sets apart equal content of two rounds."""
    shapes = {name: list(tensor.shape) for name, tensor in flat.items()}
    about = [update.site, update.round_number, privacy.clipping_norm, privacy.noise_multiplier, shapes]
    digest = hashlib.sha256(json.dumps(about).encode())
    for values in (before, clipped):
        digest.update(values.numpy().tobytes())
    return digest.digest()


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Return all numbers of some parameters, one behind the other: (N,) float64."""
    return torch.cat([torch.zeros(0, dtype=torch.float64), *(t.detach().cpu().double().flatten() for t in tensors)])


def _separated(values: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    parts = values.split([prod(tensor.shape) for tensor in like.values()])
    return {name: part.reshape(tensor.shape) for (name, tensor), part in zip(like.items(), parts, strict=True)}


def _with_parameters(update: Update, flat: dict[str, Tensor]) -> Update:
    encoders = take_nested(flat, "encoder")
    if isinstance(update, LeadUpdate):
        return replace(update, encoders=encoders, decoder=take(flat, "decoder"))
    if update.decoder is None:
        return replace(update, encoders=encoders)
    return replace(update, encoders=encoders, decoder=FilterSubset(take(flat, "decoder_filters"), update.decoder.masks))
