"""What a site's update looks like on the wire, and what a lossy codec owes the coordinator.

Error feedback (Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019): what rounding left out of an update is
added to the next one before that is rounded, so that nothing is lost for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from nnunet_fedmepd.federation.codecs import codec_named
from nnunet_fedmepd.federation.messages import HandOver, Parameters, SiteUpdate, Update
from nnunet_fedmepd.federation.packing import Reference
from nnunet_fedmepd.federation.wire import decode, encode
from nnunet_fedmepd.maths.parameters import FilterGroup, FilterSubset, dense, select


def encode_update(
    update: Update, codec_name: str, hand_over: HandOver, residual: Parameters, groups: Sequence[FilterGroup]
) -> tuple[bytes, dict[str, Tensor]]:
    """Return an update as bytes, and what they leave out of it.

    Args:
        update: after the site's training.
        codec_name: see `codecs`.
        hand_over: that the training started from.
        residual: parameter -> what was left out so far, of full shape; empty before the first update.
        groups: filters of the fusion decoder.
    """
    codec, reference = codec_named(codec_name), Reference.of(hand_over, groups)
    if codec is None or not codec.is_lossy:
        return encode(update, codec_name, reference), {}
    owed = _combined(update, residual, 1.0, groups)
    data = encode(owed, codec_name, reference)
    received = decode(data, _NO_LIMIT, reference)
    assert not isinstance(received, HandOver)  # it is our own update
    left_out = _combined(owed, _dense_parameters(received, groups), -1.0, groups)
    # A training that diverged is refused by the coordinator; it must not spoil the rounds after that.
    return data, {n: t.nan_to_num(0.0, 0.0, 0.0) for n, t in _dense_parameters(left_out, groups).items()}


_NO_LIMIT = 2**62  # of what this process wrote itself


def _combined(update: Update, other: Parameters, factor: float, groups: Sequence[FilterGroup]) -> Update:
    """Return an update with `factor` times other parameters of full shape added to its own."""

    def add(parameters: Parameters, others: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: t + factor * others[n] if n in others else t for n, t in parameters.items()}

    encoders = {modality: add(encoder, other) for modality, encoder in update.encoders.items()}
    if not isinstance(update, SiteUpdate):
        return replace(update, encoders=encoders, decoder=add(update.decoder, other))
    decoder = update.decoder
    if decoder is not None and other:
        others = select({name: other[name] for name in decoder.values}, groups, decoder.masks)
        decoder = FilterSubset(add(decoder.values, others.values), decoder.masks)
    return replace(update, encoders=encoders, decoder=decoder)


def _dense_parameters(update: Update, groups: Sequence[FilterGroup]) -> dict[str, Tensor]:
    """Return all parameters of an update with their full shapes, zero in filters that were not sent."""
    return dict(_all_parameters(update, groups))


def _all_parameters(update: Update, groups: Sequence[FilterGroup]) -> Iterator[tuple[str, Tensor]]:
    for encoder in update.encoders.values():
        yield from encoder.items()
    decoder = update.decoder
    if decoder is not None:
        yield from (dense(decoder, groups) if isinstance(decoder, FilterSubset) else decoder).items()
