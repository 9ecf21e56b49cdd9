"""What a round does to encoders, decoder, masks and anchors, whoever takes part, stays away, or comes late."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from nnunet_fedmepd.federation.coordinator import CoordinatorState, Round, TooFewSitesError
from nnunet_fedmepd.federation.site import HandOverError, begin
from nnunet_fedmepd.maths.parameters import delta
from nnunet_fedmepd.maths.personalization import PersonalizationSettings, RoundEvidence, fresh, personalize
from tests.federation.tiny_federation import GROUPS, QUICK, by, model, rules, run_round, site, some_anchors, start

WEIGHT, T1, T2 = "decoder.conv.weight", "encoders.T1.weight", "encoders.T2.weight"


def alike(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same_state(a: CoordinatorState, b: CoordinatorState) -> bool:
    encoders = all(alike(a.model.encoders[m], b.model.encoders[m]) for m in a.model.encoders)
    return encoders and alike(a.model.decoder, b.model.decoder)


def test_an_encoder_becomes_the_mean_over_the_sites_that_own_the_modality():
    state = run_round(start(), [site("a", ("T1",), by(1.0)), site("b", ("T1", "T2"), by(3.0))])
    before = model().encoders
    torch.testing.assert_close(state.model.encoders["T1"][T1], before["T1"][T1] + 2)
    torch.testing.assert_close(state.model.encoders["T2"][T2], before["T2"][T2] + 3)


def test_a_modality_that_nobody_owns_keeps_its_encoder():
    state = run_round(start(), [site("a", ("T1",), by(1.0))])
    assert torch.equal(state.model.encoders["T2"][T2], model().encoders["T2"][T2])


def test_a_site_is_handed_only_the_encoders_of_its_modalities_and_sends_only_these():
    own = site("a", ("T2",))
    run_round(start(), [own])
    assert list(own.handed[0].encoders) == ["T2"]
    assert list(own.sent[0].encoders) == ["T2"]


def test_the_decoder_keeps_the_leads_share_of_itself_and_the_lead_trains_on_top_of_it():
    state = run_round(start(), [site("a", training=by(1.0)), site("lead", training=by(0.5), lead=True)])
    torch.testing.assert_close(state.model.decoder[WEIGHT], model().decoder[WEIGHT] + 0.7 + 0.5)


def test_without_a_lead_the_aggregate_is_the_next_model():
    state = run_round(start(), [site("a", training=by(1.0)), site("b", training=by(2.0))])
    torch.testing.assert_close(state.model.decoder[WEIGHT], model().decoder[WEIGHT] + 1.5)


def test_several_leads_count_by_their_cases():
    leads = [site("x", training=by(1.0), lead=True, n_cases=10), site("y", training=by(4.0), lead=True, n_cases=20)]
    state = run_round(start(), leads)
    torch.testing.assert_close(state.model.decoder[WEIGHT], model().decoder[WEIGHT] + 3)


def test_fedavg_weighs_sites_by_their_cases():
    sites = [
        site("a", training=by(1.0), n_cases=10, personalization=None),
        site("b", training=by(4.0), n_cases=20, personalization=None),
    ]
    state = run_round(start(), sites, rules(by_cases=True))
    torch.testing.assert_close(state.model.encoders["T1"][T1], model().encoders["T1"][T1] + 3)


def test_a_personal_decoder_travels_neither_way():
    own = site("a", training=by(1.0))
    state = run_round(start(), [own], rules(decoder_travels=False))
    assert own.handed[0].decoder is None
    assert own.sent[0].decoder is None
    assert alike(state.model.decoder, model().decoder)


def test_the_order_in_which_sites_answer_changes_no_bit():
    def sites():
        return [site(name, training=by(0.1 * i + 0.03), n_cases=7 + i) for i, name in enumerate("abcdef")]

    random_order = lambda items: random.Random(4).sample(items, len(items))  # noqa: E731
    assert same_state(run_round(start(), sites()), run_round(start(), sites(), order=random_order))


def test_equal_sites_aggregate_to_themselves():
    state = run_round(start(), [site("a", training=by(0.3)), site("b", training=by(0.3))])
    assert torch.equal(state.model.decoder[WEIGHT], model().decoder[WEIGHT] + 0.3)


def test_one_site_alone_is_a_federation():
    state = start()
    for _ in range(3):
        state = run_round(state, [own := site("only", training=by(0.1))])
    assert state.round_number == 3
    assert torch.equal(state.model.decoder[WEIGHT], own.own[WEIGHT])


def drift_apart(sites_rounds: int, settings: PersonalizationSettings = QUICK):
    """Run a site that moves its first two filters against the lead, for some rounds."""

    def contrary(parameters, _):
        moved = {name: tensor + 0.1 for name, tensor in parameters.items()}
        moved[WEIGHT][:2] -= 0.2
        return moved

    own = site("a", training=contrary, personalization=settings)
    lead = site("lead", training=by(0.5), lead=True)
    state = start()
    for _ in range(sites_rounds):
        state = run_round(state, [own, lead])
    return own, lead, state


def test_filters_that_disagree_for_as_long_as_patience_lasts_become_personal_and_stop_travelling():
    own, _, _ = drift_apart(4)
    assert own.masks()["decoder.conv"].tolist() == [False, False, True, True]
    assert own.sent[-1].decoder.values[WEIGHT].shape == (2, 3)
    assert own.sent[-1].importance["decoder.conv"][:2].tolist() == [0, 0]


def test_a_personal_filter_is_the_sites_own_from_then_on_and_the_leads_stays_its_own():
    own, lead, state = drift_apart(5)
    before = own.own[WEIGHT].clone()
    run_round(state, [own, lead])
    torch.testing.assert_close(own.own[WEIGHT][:2], before[:2] - 0.1)
    assert own.handed[-1].decoder.masks["decoder.conv"].tolist() == [False, False, True, True]


def test_masks_patience_and_importance_are_those_that_a_server_with_every_update_would_compute():
    published = replace(QUICK, leave_one_out=False)
    own, lead, state = drift_apart(1, published)
    reference, before = fresh(GROUPS, published), model().decoder
    for number in range(1, 6):
        after = state.model.decoder
        site_change = delta({n: own.own[n] for n in before}, own_start(own, before, reference))
        evidence = RoundEvidence(number, delta(after, before), site_change, 1.0)
        (reference, _), before = personalize(reference, evidence, GROUPS, published), after
        state = run_round(state, [own, lead])
        for name in ("patience", "importance", "shared"):
            ours, theirs = getattr(own.state.personalization, name), getattr(reference, name)
            assert torch.equal(ours["decoder.conv"], theirs["decoder.conv"]), (number, name)


def own_start(own, before, reference):
    """Return the decoder that the site started its last round from: all that is known of it to a server."""
    shared = reference.shared["decoder.conv"]
    previous = {name: own.own[name] - change for name, change in own.state.update.items()}
    for name in previous:
        assert torch.allclose(previous[name][shared], before[name][shared], atol=1e-5)
    return previous


@pytest.mark.parametrize("settings", [None, PersonalizationSettings(patience=1, warm_up_rounds=1000)])
def test_without_personalization_or_in_warm_up_every_filter_stays_shared(settings):
    own, _, _ = drift_apart(4, settings)
    assert own.masks()["decoder.conv"].all()


def test_when_all_filters_of_all_sites_are_personal_the_leads_decoder_is_its_own():
    def against(parameters, _):
        return {name: tensor - 0.1 for name, tensor in parameters.items()}

    own = site("a", training=against, personalization=PersonalizationSettings(patience=1, warm_up_rounds=0))
    lead = site("lead", training=by(0.5), lead=True)
    state = run_round(run_round(run_round(start(), [own, lead]), [own, lead]), [own, lead])
    assert not own.masks()["decoder.conv"].any()
    later = run_round(state, [own, lead])
    torch.testing.assert_close(later.model.decoder[WEIGHT], state.model.decoder[WEIGHT] + 0.5)


def test_a_site_that_does_not_move_judges_nothing_and_stays_finite():
    own, lead = site("a", training=by(0.0)), site("lead", training=by(0.0), lead=True)
    state = start()
    for _ in range(4):
        state = run_round(state, [own, lead])
    assert own.masks()["decoder.conv"].all()
    assert torch.equal(own.state.personalization.importance["decoder.conv"], torch.ones(4))
    assert all(tensor.isfinite().all() for tensor in state.model.decoder.values())


def test_a_site_that_joins_in_round_5_starts_with_everything_shared():
    lead, state = site("lead", training=by(0.5), lead=True), start()
    for _ in range(4):
        state = run_round(state, [site("a", training=by(0.1)), lead])
    late = site("late", training=by(0.2))
    after = run_round(state, [late, lead])
    assert late.handed[0].round_number == 5
    torch.testing.assert_close(late.handed[0].encoders["T1"][T1], state.model.encoders["T1"][T1])
    assert after.counted == {"late", "lead"}


def test_a_site_that_misses_rounds_3_to_7_keeps_its_state_and_does_not_judge_what_it_did_not_see():
    own, lead, state = drift_apart(2)
    before = own.state.personalization
    for _ in range(5):
        state = run_round(state, [lead])
    run_round(state, [own, lead])
    assert own.handed[-1].round_number == 8
    assert alike(own.state.personalization.patience, before.patience)
    assert alike(own.state.personalization.importance, before.importance)


def test_a_site_that_never_returns_does_not_hold_up_the_others():
    _, lead, state = drift_apart(2)
    other = site("b", training=by(0.1))
    for _ in range(3):
        state = run_round(state, [other, lead])
    assert state.round_number == 5
    assert state.counted == {"b", "lead"}


def test_too_few_updates_stop_the_round_and_name_who_is_missing():
    present, absent = site("a"), site("b")
    current = Round(start(), [present.participant, absent.participant], rules(minimum_sites=2))
    current.add(present.take_turn(current.hand_over("a")))
    with pytest.raises(TooFewSitesError, match=r"1 updates of sites; at least 2 are needed. Missing: b"):
        current.aggregate()
    current.add(absent.take_turn(current.hand_over("b")))
    current.aggregate()


def test_a_round_that_is_handed_over_twice_is_refused_by_the_site():
    own = site("a")
    hand_over = Round(start(), [own.participant], rules()).hand_over("a")
    own.take_turn(hand_over)
    with pytest.raises(HandOverError, match="'a' was handed over round 1, but has trained round 1 already"):
        begin(own.state, hand_over, {}, own.rules)


def test_leave_one_out_takes_the_sites_own_push_out_of_what_it_is_judged_by():
    settings = PersonalizationSettings(patience=1, warm_up_rounds=0, leave_one_out=True)

    def outvoted(personalization):
        loud = site("loud", training=by(-10.0), personalization=personalization)
        others = [site("b", training=by(1.0)), site("lead", training=by(0.0), lead=True)]
        state = start()
        for _ in range(2):
            state = run_round(state, [loud, *others])
        return loud.masks()["decoder.conv"]

    assert not outvoted(settings).any()
    assert outvoted(replace(settings, leave_one_out=False)).all()


def test_leave_one_out_takes_all_of_a_sites_own_push_out_where_nobody_leads():
    settings = replace(QUICK, patience=1, leave_one_out=True)
    loud = site("loud", training=by(-10.0), personalization=settings)
    state = start()
    for _ in range(2):
        state = run_round(state, [loud, site("b", training=by(1.0))])
    assert not loud.masks()["decoder.conv"].any(), "the only other site moved the other way"


def test_a_leads_anchors_reach_the_sites_in_the_next_round_as_they_are():
    own, lead = site("a"), site("lead", lead=True, anchors=some_anchors())
    state = run_round(start(), [own, lead])
    assert own.handed[0].anchors is None
    run_round(state, [own, lead])
    torch.testing.assert_close(own.handed[1].anchors.values[0], some_anchors().values[0])
    assert own.handed[1].anchors.valid.all()


def test_the_anchors_of_two_leads_are_grouped_once_and_then_follow_their_members():
    leads = [
        site("x", lead=True, anchors=some_anchors(0.0)),
        site("y", lead=True, anchors=some_anchors(10.0)),
    ]
    state = run_round(start(), leads)
    first = state.anchors.anchors[0]
    assert sorted(first[0, :, 0].round().tolist()) == [0.0, 10.0]
    leads[1].anchors = some_anchors(12.0)
    moved = run_round(state, leads).anchors
    assert sorted(moved.anchors[0][0, :, 0].round().tolist()) == [0.0, 12.0]
    assert moved.membership == state.anchors.membership


def test_anchors_stay_when_the_lead_misses_a_round():
    own, lead = site("a"), site("lead", lead=True, anchors=some_anchors())
    state = run_round(start(), [own, lead])
    later = run_round(state, [own])
    assert torch.equal(later.anchors.anchors[0], state.anchors.anchors[0])
