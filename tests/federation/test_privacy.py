"""Protected updates: clipped as a whole, noised as declared, alike for the same update, and all that is judged by."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import stats

from nnunet_fedmepd.config.federation import PrivacyTable
from nnunet_fedmepd.federation.coordinator import Round
from nnunet_fedmepd.federation.messages import HandOver, Update
from nnunet_fedmepd.federation.noise import gaussian_noise
from nnunet_fedmepd.federation.packing import Reference
from nnunet_fedmepd.federation.privacy import as_judged, protect
from nnunet_fedmepd.federation.sending import encode_update
from nnunet_fedmepd.federation.site import begin, finish
from nnunet_fedmepd.federation.tensors import take
from nnunet_fedmepd.federation.wire import tensors_of
from nnunet_fedmepd.maths.parameters import ParameterError
from tests.federation.tiny_federation import GROUPS, Site, by, model, rules, site, some_anchors, start

SECRET, OTHER_SECRET = bytes(32), bytes([1] * 32)
ALMOST_NO_NOISE = 1e-12


def turn_of(own: Site) -> tuple[Round, HandOver, Update]:
    """Let a site take its turn in the first round."""
    current = Round(start(), [own.participant], rules())
    if own.participant.is_lead:
        current.aggregate()
    update = own.take_turn(current.hand_over(own.participant.name))
    return current, own.handed[-1], update


def change(update: Update, hand_over: HandOver) -> torch.Tensor:
    """Return what an update tells of the training: all differences from what was handed over, one behind the other."""
    flat = tensors_of(update)
    known = Reference.of(hand_over, GROUPS).flat(take(flat, "decoder_masks"))
    return torch.cat([(flat[name].double() - known[name].double()).flatten() for name in sorted(flat) if name in known])


def protected(own: Site, privacy: PrivacyTable, secret: bytes = SECRET) -> tuple[Round, HandOver, Update]:
    current, hand_over, update = turn_of(own)
    return current, hand_over, protect(update, hand_over, GROUPS, privacy, secret)[0]


@pytest.mark.parametrize("lead", [False, True], ids=["site", "lead"])
@pytest.mark.parametrize("amount", [1e-3, 1.0, 1e6])
def test_no_change_is_longer_than_the_clipping_norm_and_a_shorter_one_is_not_clipped(lead, amount):
    own = site("a", training=by(amount), lead=lead)
    _, hand_over, update = turn_of(own)
    privacy = PrivacyTable(clipping_norm=0.5, noise_multiplier=ALMOST_NO_NOISE)
    sent, norms = protect(update, hand_over, GROUPS, privacy, SECRET)
    raw, released = change(update, hand_over), change(sent, hand_over)
    assert norms.change == pytest.approx(float(raw.norm()))
    rounding = 1e-6  # of float32, in the sum with what was handed over
    assert released.norm() <= 0.5 + rounding
    torch.testing.assert_close(released, raw * min(1.0, 0.5 / float(raw.norm())), atol=rounding, rtol=0)


def test_noise_is_normal_of_variance_1():
    values = gaussian_noise(b"key", 200_001)
    assert values.numel() == 200_001
    assert stats.kstest(values.numpy(), "norm").pvalue > 0.01
    # Numbers beside each other, and of different blocks, have nothing to do with each other.
    for distance in (1, 65536):
        assert abs(torch.corrcoef(torch.stack([values[:-distance], values[distance:]]))[0, 1]) < 0.01
    assert torch.equal(gaussian_noise(b"key", 70_000), values[:70_000])
    assert gaussian_noise(b"key", 0).numel() == 0


def test_an_update_gets_noise_of_the_declared_variance():
    own = site("a", training=by(0.0))
    _, hand_over, update = turn_of(own)
    privacy = PrivacyTable(clipping_norm=0.25, noise_multiplier=8.0)
    noise = torch.cat(
        [
            change(protect(replace(update, round_number=r), hand_over, GROUPS, privacy, SECRET)[0], hand_over)
            for r in range(1, 401)
        ]
    )
    assert noise.std() == pytest.approx(2.0, rel=0.03)
    assert abs(noise.mean()) < 0.1


def test_the_same_update_gets_the_same_noise_and_whatever_differs_gets_other_noise():
    own = site("a", training=by(0.01))
    _, hand_over, update = turn_of(own)
    privacy = PrivacyTable(clipping_norm=10.0, noise_multiplier=1.0)

    def sent(changed: Update, secret: bytes = SECRET, table: PrivacyTable = privacy) -> torch.Tensor:
        return change(protect(changed, hand_over, GROUPS, table, secret)[0], hand_over)

    first = sent(update)
    assert torch.equal(first, sent(update))
    encoder = {name: tensor * (1 + 2.0**-22) for name, tensor in update.encoders["T1"].items()}
    others = [
        sent(update, OTHER_SECRET),
        sent(replace(update, round_number=2)),
        sent(replace(update, site="b")),
        sent(replace(update, encoders={**update.encoders, "T1": encoder})),  # by a bit or two
        sent(update, table=privacy.model_copy(update={"noise_multiplier": 1.01})),
    ]
    for other in others:  # the difference is that of two independent noises, 10 * sqrt(2) in every number
        assert 5 < (other - first).std() < 30


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_that_a_training_diverged_does_not_show(bad):
    own = site("a", training=by(bad))
    current, hand_over, sent = protected(own, PrivacyTable(clipping_norm=1.0, noise_multiplier=1.0))
    assert 0.5 < change(sent, hand_over).std() < 2
    current.add(sent)
    assert current.counted == {"a"}


@pytest.mark.parametrize("lead", [False, True], ids=["site", "lead"])
@pytest.mark.parametrize("codec", ["none", "lossless", "bf16", "int8"])
def test_a_protected_update_passes_through_any_codec_into_the_sums(codec, lead):
    own = site("a", training=by(0.1), lead=lead)
    current, hand_over, sent = protected(own, PrivacyTable(clipping_norm=1.0, noise_multiplier=0.1))
    data, _ = encode_update(sent, codec, hand_over, {}, GROUPS)
    received = current.receive("a", data)
    torch.testing.assert_close(change(received, hand_over), change(sent, hand_over), atol=0.01, rtol=0)


def test_the_choice_of_personal_filters_and_the_importance_tell_no_more_than_the_update():
    own = site("a", training=by(0.1))
    _, hand_over, update = turn_of(own)
    sent, _ = protect(update, hand_over, GROUPS, PrivacyTable(clipping_norm=1.0, noise_multiplier=1.0), SECRET)
    moved = {name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in model().decoder.items()}
    next_hand_over = replace(
        hand_over,
        round_number=2,
        decoder=replace(hand_over.decoder, values=moved),
        share_denominators={"decoder.conv": torch.full((4,), 2.0, dtype=torch.float64)},
        n_cases_total=20,
    )
    next_turns = []
    for amount in (0.1, -5.0):  # two data sets, whose updates happened to be the same after noise
        turn = begin(type(own.state)(), hand_over, model().decoder, own.rules)
        state = finish(turn, by(amount)(dict(turn.parameters), 1), own.rules)[1]
        judged = as_judged(state, sent, hand_over, GROUPS)
        next_turns.append(begin(judged, next_hand_over, model().decoder, own.rules))
        unprotected = begin(state, next_hand_over, model().decoder, own.rules)
        assert not torch.equal(unprotected.agreement["decoder.conv"], next_turns[-1].agreement["decoder.conv"])
    one, other = (turn.state.personalization for turn in next_turns)
    for what in ("patience", "importance", "shared"):
        assert torch.equal(getattr(one, what)["decoder.conv"], getattr(other, what)["decoder.conv"])
    assert not torch.equal(one.importance["decoder.conv"], torch.ones(4))


def test_a_personal_filter_is_neither_sent_nor_judged_and_one_that_was_not_handed_over_is_clipped():
    own = site("a", ("T1",), by(1.0))
    _, hand_over, update = turn_of(own)
    masks = {"decoder.conv": torch.tensor([True, False, True, True])}
    values = {name: tensor[masks["decoder.conv"]] for name, tensor in update.decoder.values.items()}
    update = replace(update, decoder=replace(update.decoder, values=values, masks=masks))
    handed_masks = {"decoder.conv": torch.tensor([True, True, True, False])}
    handed = {name: tensor[:3] for name, tensor in hand_over.decoder.values.items()}
    hand_over = replace(hand_over, decoder=replace(hand_over.decoder, values=handed, masks=handed_masks))
    privacy = PrivacyTable(clipping_norm=0.5, noise_multiplier=ALMOST_NO_NOISE)
    sent, _ = protect(update, hand_over, GROUPS, privacy, SECRET)
    assert sent.decoder.values["decoder.conv.weight"].shape == (3, 3)
    assert sent.decoder.values["decoder.conv.weight"][2].norm() <= 0.5  # of a filter that nobody handed over
    assert change(sent, hand_over).norm() <= 0.5 + 1e-6
    judged = as_judged(own.state, sent, hand_over, GROUPS)
    assert not judged.update["decoder.conv.weight"][1].any()


def test_anchors_and_arrays_that_were_not_handed_over_are_refused():
    privacy = PrivacyTable(clipping_norm=1.0, noise_multiplier=1.0)
    with pytest.raises(ParameterError, match="Anchors cannot be protected"):
        protected(site("a", lead=True, anchors=some_anchors()), privacy)
    _, hand_over, update = turn_of(site("a"))
    hand_over = replace(hand_over, encoders={"T1": hand_over.encoders["T1"]})
    with pytest.raises(ParameterError, match="handed over lack 1 of 4 parameters, the first is 'encoder/T2"):
        protect(update, hand_over, GROUPS, privacy, SECRET)
