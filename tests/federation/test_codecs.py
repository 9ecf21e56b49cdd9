"""Codecs give back what they promise, make up for what they round, and believe no claim of size."""

from __future__ import annotations

import json
from dataclasses import replace

import blosc2
import numpy as np
import pytest
import safetensors.torch
import torch

from nnunet_fedmepd.federation.admission import UpdateRefusedError
from nnunet_fedmepd.federation.codecs import BLOCK, CODECS, LEVELS, CodecError
from nnunet_fedmepd.federation.coordinator import Round
from nnunet_fedmepd.federation.messages import HandOver
from nnunet_fedmepd.federation.sending import encode_update
from nnunet_fedmepd.federation.wire import MessageError, decode, encode, tensors_of
from tests.federation.tiny_federation import GROUPS, an_update, by, rules, site, some_anchors, start

LIMIT = 10**6
LENGTHS = (0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 1)


def some_values(length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(length, generator=generator)
    return reference + 1e-3 * torch.randn(length, generator=generator), reference


@pytest.mark.parametrize("length", LENGTHS)
def test_lossless_gives_back_every_bit_also_of_what_is_no_number(length):
    values, reference = some_values(length)
    values[:4] = torch.tensor([torch.nan, -torch.inf, -0.0, 3e38])[:length]
    codec = CODECS["lossless"]
    received = codec.unpack(codec.pack(values, reference), reference)
    assert torch.equal(received.view(torch.int32), values.view(torch.int32))


@pytest.mark.parametrize("length", LENGTHS)
def test_bf16_rounds_every_difference_to_8_bits(length):
    values, reference = some_values(length)
    received = CODECS["bf16"].unpack(CODECS["bf16"].pack(values, reference), reference)
    change = (values - reference).abs()
    assert ((received - values).abs() <= change * 2.0**-8 + reference.abs() * 2.0**-23).all()


@pytest.mark.parametrize("length", LENGTHS)
def test_int8_rounds_every_difference_to_half_a_step_of_its_own_block(length):
    values, reference = some_values(length)
    values[BLOCK:] = reference[BLOCK:] + 1000 * (values - reference)[BLOCK:]  # must not coarsen the first block
    received = CODECS["int8"].unpack(CODECS["int8"].pack(values, reference), reference)
    for block in range(0, length, BLOCK):
        own = slice(block, block + BLOCK)
        step = (values - reference)[own].abs().max() / LEVELS
        assert ((received - values)[own].abs() <= 0.501 * step + 1e-6).all()


@pytest.mark.parametrize("codec", CODECS)
def test_values_that_did_not_change_come_back_to_the_bit(codec):
    _, reference = some_values(1000)
    assert torch.equal(CODECS[codec].unpack(CODECS[codec].pack(reference, reference), reference), reference)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_does_not_come_back_as_a_number(codec, bad):
    values, reference = some_values(10)
    values[3] = bad
    assert not CODECS[codec].unpack(CODECS[codec].pack(values, reference), reference)[3].isfinite()


def turn_of(own) -> tuple[Round, HandOver]:
    """Let a site take its turn in a round, and return both."""
    current = Round(start(), [own.participant], rules())
    if own.participant.is_lead:
        current.aggregate()
    own.take_turn(current.hand_over(own.participant.name))
    return current, own.handed[-1]


@pytest.mark.parametrize("lead", [False, True], ids=["site", "lead"])
@pytest.mark.parametrize("codec", ["none", *CODECS])
def test_an_update_passes_through_any_codec_into_the_sums(codec, lead):
    own = site("a", lead=lead, training=by(0.25), anchors=some_anchors() if lead else None)
    current, hand_over = turn_of(own)
    data, _ = encode_update(own.sent[-1], codec, hand_over, {}, GROUPS)
    received = current.receive("a", data)
    before, after = tensors_of(own.sent[-1]), tensors_of(received)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=0)  # 0.25 is a whole step of every codec
    assert current.counted == {"a"}


@pytest.mark.parametrize("codec", ["bf16", "int8"])
def test_what_rounding_leaves_out_of_one_update_is_in_a_later_one(codec):
    own = site("a", training=lambda p, _: {n: t + torch.linspace(1e-4, 1, t.numel()).view_as(t) for n, t in p.items()})
    current, hand_over = turn_of(own)
    update, residual, total = own.sent[-1], {}, torch.zeros(4, 3)
    handed = current.state.model.decoder["decoder.conv.weight"]
    change = update.decoder.values["decoder.conv.weight"] - handed
    for n_rounds in range(1, 41):
        data, residual = encode_update(update, codec, hand_over, residual, GROUPS)
        received = decode(data, LIMIT, current.reference())
        total = total + received.decoder.values["decoder.conv.weight"] - handed
        # One step of the largest change, whatever the number of rounds: nothing is lost for good.
        assert (total - n_rounds * change).abs().max() <= change.abs().max() * 2.0**-7 + n_rounds * 1e-6
    assert residual.keys() == {*own.sent[-1].decoder.values, *(n for e in update.encoders.values() for n in e)}


def test_a_filter_that_became_personal_is_neither_sent_nor_owed():
    own = site("a", ("T1",), by(0.3))
    current, hand_over = turn_of(own)
    masks = {"decoder.conv": torch.tensor([True, False, True, False])}
    values = {n: t[masks["decoder.conv"]] for n, t in own.sent[-1].decoder.values.items()}
    update = replace(own.sent[-1], decoder=replace(own.sent[-1].decoder, values=values, masks=masks))
    owed = {n: torch.ones(4, 3) if n.endswith("weight") else torch.ones(4) for n in values}
    data, residual = encode_update(update, "int8", hand_over, owed, GROUPS)
    received = current.receive("a", data)
    assert received.decoder.values["decoder.conv.weight"].shape == (2, 3)
    assert not residual["decoder.conv.weight"][[1, 3]].any()


@pytest.mark.parametrize("codec", CODECS)
def test_a_training_that_diverged_is_refused_and_not_owed(codec):
    own = site("a", ("T1",), by(float("nan")))
    current, hand_over = turn_of(own)
    data, residual = encode_update(own.sent[-1], codec, hand_over, {}, GROUPS)
    with pytest.raises(UpdateRefusedError, match=r"'a' is refused: 'encoders.T1.weight' .* not finite"):
        current.receive("a", data)
    assert all(tensor.isfinite().all() for tensor in residual.values())


def test_a_hand_over_travels_without_loss_and_without_a_reference():
    own = site("a")
    _, hand_over = turn_of(own)
    received, sent = tensors_of(decode(encode(hand_over, "lossless"), LIMIT)), tensors_of(hand_over)
    assert all(torch.equal(received[name], sent[name]) for name in sent)


def packed_message(**changes) -> bytes:
    """Return an update that packs its parameters, with another description of them."""
    own = site("a", ("T1",), by(0.1))
    _, hand_over = turn_of(own)
    data, _ = encode_update(own.sent[-1], "int8", hand_over, {}, GROUPS)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["fedmepd"])
    flat = safetensors.torch.load(data)
    flat["packed/0"] = changes.pop("block", flat["packed/0"])
    header["packed"] = {**header["packed"], **changes}
    return safetensors.torch.save(flat, {"fedmepd": json.dumps(header)})


def bomb() -> torch.Tensor:
    """Return a few bytes that decompress to 400 MB."""
    data = blosc2.compress2(np.zeros(400_000_000, np.int8), typesize=1, codec=blosc2.Codec.ZSTD)
    assert len(data) < 100_000
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


WEIGHT = "encoder/T1/encoders.T1.weight"
GARBAGE = {
    "10 GB": ({"arrays": [[WEIGHT, 2_500_000_000]]}, "claims to unpack to 10000000000 bytes; at most"),
    "a bomb": ({"block": bomb()}, "hold 400000000; expected 22"),
    "random bytes": ({"block": torch.arange(50, dtype=torch.uint8)}, "compressed bytes"),
    "no bytes": ({"block": torch.zeros(0, dtype=torch.uint8)}, "compressed bytes"),
    "another codec": ({"codec": "bf16"}, "Codec bf16 writes 1 arrays; found 2"),
    "an unknown codec": ({"codec": "pickle"}, "no codec 'pickle'"),
    "no codec": ({"codec": "none"}, "packed by no codec"),
    "another reference": ({"reference": "0" * 16}, "other parameters than those that were handed over"),
    "an unknown array": ({"arrays": [["encoder/T2/x", 2]]}, "'encoder/T2/x' .* expected no such array"),
    "another shape": ({"arrays": [[WEIGHT, 3, 2]]}, r"shape \(3, 2\); expected shape \(2, 3\)"),
    "a negative shape": ({"arrays": [[WEIGHT, -2, -3]]}, "whole numbers"),
    "no parameter": ({"arrays": [["importance/x", 2]]}, "which is no parameter"),
    "no list": ({"arrays": 7}, "no message"),
}


@pytest.mark.parametrize(("changes", "message"), GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused_by_name_and_leaves_no_trace(changes, message):
    own = site("a", ("T1",), by(0.1))
    current, hand_over = turn_of(own)
    with pytest.raises(UpdateRefusedError, match=f"'a' is refused: .*{message}"):
        current.receive("a", packed_message(**changes))
    assert current.counted == set()
    current.receive("a", encode_update(own.sent[-1], "int8", hand_over, {}, GROUPS)[0])


def test_damaged_bytes_are_an_error_of_the_message_or_other_numbers_but_never_a_crash():
    values, reference = some_values(2000)
    whole, draw = CODECS["int8"].pack(values, reference)[0], np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[draw.integers(len(whole))] = draw.integers(256)
        try:
            CODECS["int8"].unpack([bytes(damaged), CODECS["int8"].pack(values, reference)[1]], reference)
        except CodecError:
            continue


def test_a_site_cannot_send_for_another_nor_a_hand_over():
    own = site("a", ("T1",), by(0.1))
    current, hand_over = turn_of(own)
    for message in (replace(own.sent[-1], site="b"), hand_over):
        with pytest.raises(UpdateRefusedError, match="'a' is refused: it is a"):
            current.receive("a", encode(message))


def test_a_codec_that_does_not_exist_is_named_before_anything_is_sent():
    with pytest.raises(CodecError, match="no codec 'zip'; expected none, lossless, bf16, int8"):
        encode(an_update(), "zip")


def test_without_the_reference_a_coded_update_is_refused():
    with pytest.raises(MessageError, match="other parameters than those that were handed over"):
        decode(packed_message(), LIMIT)
