"""Agreement, patience, masks and importance: tables by hand, and equality with a server that sees everything."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.maths.aggregation import WeightedSum, decoder_mean, share_denominators, weigh_filters
from nnunet_fedmepd.maths.parameters import (
    FilterGroup,
    ParameterError,
    delta,
    dense,
    overlay,
    select,
)
from nnunet_fedmepd.maths.personalization import (
    PersonalizationSettings,
    RoundEvidence,
    agreement,
    average_updates,
    beyond_noise,
    compare,
    fresh,
    leave_one_out,
    own_share,
    patience_for,
    personalize,
    update,
    warm_up_for,
)
from tests.maths.filter_rows import filter_matrix

LAM = 0.3
CONV = FilterGroup("conv", (("conv.weight", 0), ("conv.bias", 0)), 4)
UP = FilterGroup("up", (("up.weight", 1), ("up.bias", 0)), 3)
GROUPS = [CONV, UP]
SHAPES = {"conv.weight": (4, 2, 2), "conv.bias": (4,), "up.weight": (2, 3, 2), "up.bias": (3,)}

ONE = [FilterGroup("g", (("w", 0),), 1)]


def vector(*values):
    """One group of one filter."""
    return {"w": torch.tensor([values], dtype=torch.float32)}


def constant(value):
    """A whole decoder of one value."""
    return {name: torch.full(shape, float(value)) for name, shape in SHAPES.items()}


def judge(*arguments):
    """The state after a round."""
    state, _ = personalize(*arguments)
    return state


def settings(**changes):
    return PersonalizationSettings(**{"warm_up_rounds": 0, "patience": 3, "leave_one_out": False, **changes})


def evidence(lead, site, round_number=1, case_share=0.5, own_share=None):
    return RoundEvidence(round_number, lead, site, case_share, own_share)


def random_parameters(generator, scale=1.0):
    return {name: torch.randn(shape, generator=generator) * scale for name, shape in SHAPES.items()}


def assert_same_state(a, b):
    for part in dataclasses.fields(a):
        one, other = getattr(a, part.name), getattr(b, part.name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), part.name


# --- agreement ---------------------------------------------------------------------------------------------------


def test_agreement_is_the_cosine_of_weight_and_bias_together():
    group = FilterGroup("g", (("w", 0), ("b", 0)), 3)
    lead = {"w": torch.tensor([[3.0], [1], [2]]), "b": torch.tensor([4.0, 0, 2])}
    site = {"w": torch.tensor([[4.0], [0], [-1]]), "b": torch.tensor([3.0, 5, -1])}
    assert agreement(lead, site, [group])["g"].tolist() == pytest.approx([24 / 25, 0, -1])


def test_agreement_with_no_update_is_zero_and_never_a_nan():
    still, moving = vector(0, 0), vector(1, 2)
    for lead, site in ((still, moving), (moving, still), (still, still)):
        assert agreement(lead, site, ONE)["g"].tolist() == [0]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_agreement_of_very_small_and_very_large_updates_is_finite(scale):
    assert agreement(vector(scale, 0), vector(scale, scale), ONE)["g"].item() == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_update_is_refused(value):
    with pytest.raises(ParameterError, match="'g' is not finite"):
        judge(fresh(ONE, settings()), evidence(vector(1, value), vector(1, 1)), ONE, settings())


# --- patience ----------------------------------------------------------------------------------------------------

# The cosine of each round, and what is left of a patience of 3 after it; p: personal.
TABLE = {
    "agreement never costs patience": ("++++", "3333"),
    "disagreement costs one a round, until the filter is personal": ("---", "21p"),
    "one agreement restores all patience": ("--+--", "21321"),
    "no agreement either way changes nothing": ("-00-0", "22211"),
    "a personal filter stays personal": ("---++0-", "21ppppp"),
    "disagreements need not follow each other directly": ("-0-0-", "2211p"),
}


@pytest.mark.parametrize(("cosines", "left"), TABLE.values(), ids=TABLE.keys())
def test_patience_falls_resets_and_expires(cosines, left):
    state = fresh(ONE, settings())
    for number, (sign, expected) in enumerate(zip(cosines, left, strict=True), 1):
        site = vector({"+": 1, "-": -1, "0": 0}[sign], 0)
        state = judge(state, evidence(vector(2, 0), site, number), ONE, settings())
        patience = 0 if expected == "p" else int(expected)
        assert state.patience["g"].tolist() == [patience]
        assert state.shared["g"].tolist() == [expected != "p"]
        assert (state.importance["g"] == 0).item() == (expected == "p")


def test_filters_of_one_group_are_judged_one_by_one():
    group = [FilterGroup("g", (("w", 1),), 3)]
    lead, site = {"w": torch.tensor([[1.0, 1, 1]])}, {"w": torch.tensor([[1.0, -1, 0]])}
    state = judge(fresh(group, settings(patience=1)), evidence(lead, site), group, settings(patience=1))
    assert state.shared["g"].tolist() == [True, False, True]


def test_nothing_is_judged_during_warm_up():
    rules = settings(warm_up_rounds=2, patience=1)
    state = fresh(ONE, rules)
    for number, shared in ((1, True), (2, True), (3, False)):
        state = judge(state, evidence(vector(1, 0), vector(-1, 0), number), ONE, rules)
        assert state.shared["g"].tolist() == [shared]


def test_the_warm_up_is_the_published_share_of_a_run():
    assert [warm_up_for(n_rounds) for n_rounds in (1000, 300, 50, 10)] == [30, 9, 2, 0]


def test_patience_grows_slowly_with_the_rounds_to_the_published_one():
    assert [patience_for(n_rounds) for n_rounds in (1, 8, 24, 100, 1000)] == [1, 2, 3, 5, 10]


def test_a_site_can_end_with_every_filter_personal_or_with_none():
    lead = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    against = {name: -tensor for name, tensor in lead.items()}
    for site, shared in ((against, False), (lead, True)):
        state = fresh(GROUPS, settings())
        for number in (1, 2, 3):
            state = judge(state, evidence(lead, site, number), GROUPS, settings())
        assert all((mask == shared).all() for mask in state.shared.values())


# --- importance --------------------------------------------------------------------------------------------------


def test_importance_follows_the_ratio_of_the_updates_and_the_share_of_cases():
    state = judge(fresh(ONE, settings()), evidence(vector(3, 4), vector(0, 2), case_share=0.2), ONE, settings())
    assert state.importance["g"].item() == pytest.approx(0.95 + 0.05 * (5 / 2) * 0.2)


def test_importance_stays_where_the_site_did_not_move_and_decays_where_the_lead_did_not():
    still, moving = vector(0, 0), vector(1, 0)
    for lead, site, expected in ((moving, still, 1.0), (still, still, 1.0), (still, moving, 0.95)):
        state = judge(fresh(ONE, settings()), evidence(lead, site), ONE, settings())
        assert state.importance["g"].item() == pytest.approx(expected)


def test_a_filter_that_hardly_moved_at_the_site_does_not_get_boundless_importance():
    state = judge(fresh(ONE, settings()), evidence(vector(1, 0), vector(1e-30, 0)), ONE, settings())
    assert state.importance["g"].item() == pytest.approx(0.95 + 0.05 * 1000 * 0.5)


# --- joining late, missing rounds --------------------------------------------------------------------------------


def test_a_late_joiner_starts_with_all_filters_shared_full_patience_and_importance_one():
    state = fresh(GROUPS, settings(patience=7))
    assert {name: p.tolist() for name, p in state.patience.items()} == {"conv": [7] * 4, "up": [7] * 3}
    assert all(mask.all() for mask in state.shared.values())
    assert all((h == 1).all() for h in state.importance.values())
    late = judge(state, evidence(constant(1), constant(-1), 5), GROUPS, settings(patience=7))
    assert late.patience["conv"].tolist() == [6] * 4


def test_a_site_that_misses_rounds_goes_on_where_it_was():
    state = fresh(ONE, settings())
    for number in (1, 2, 8):
        state = judge(state, evidence(vector(1, 0), vector(-1, 0), number), ONE, settings())
    assert state.shared["g"].tolist() == [False]


# --- options -----------------------------------------------------------------------------------------------------


def test_leave_one_out_takes_the_sites_own_part_from_the_leads_update():
    """Two sites with h = 1 and 3: site 1 (update 10, 0) has a share 0.7 / 4 in the lead's, which itself adds (0, 1)."""
    share = own_share({"g": torch.tensor([1.0])}, {"g": torch.tensor([4 / 0.7], dtype=torch.float64)})
    assert share["g"].item() == pytest.approx(0.175)
    others_and_lead = torch.tensor([[0.7 * 3 / 4 * 2, 1.0]])
    lead = {"w": others_and_lead + 0.175 * torch.tensor([[10.0, 0]])}
    assert torch.allclose(leave_one_out(lead, vector(10, 0), ONE, share)["w"], others_and_lead)


def test_what_is_left_is_compared_as_if_it_had_been_made():
    lead, site = ({name: torch.randn(shape) for name, shape in SHAPES.items()} for _ in range(2))
    share = {group.name: torch.rand(group.n_filters) for group in GROUPS}
    found = compare(lead, site, GROUPS, share)
    made = compare(leave_one_out(lead, site, GROUPS, share), site, GROUPS)
    for one, other in zip(dataclasses.astuple(found), dataclasses.astuple(made), strict=True):
        for group in GROUPS:
            torch.testing.assert_close(one[group.name], other[group.name], rtol=1e-5, atol=1e-6)


def test_a_change_that_is_the_sites_own_share_but_for_rounding_is_none():
    site = {"w": torch.randn(1, 1000)}
    share = {"g": torch.tensor([0.175])}
    compared = compare({"w": 0.175 * site["w"]}, site, ONE, share)
    assert compared.cosines["g"].tolist() == compared.lead_norms["g"].tolist() == [0]


def test_leave_one_out_can_turn_agreement_into_disagreement():
    lead, site = vector(0.5, 0), vector(1, 0)
    plain, left_out = settings(patience=1), settings(patience=1, leave_one_out=True)
    seen = evidence(lead, site, own_share={"g": torch.tensor([0.7])})
    with_own = judge(fresh(ONE, plain), seen, ONE, plain)
    without = judge(fresh(ONE, left_out), seen, ONE, left_out)
    assert with_own.shared["g"].tolist() == [True]
    assert without.shared["g"].tolist() == [False]


def test_a_site_has_no_share_in_a_filter_that_nobody_shares():
    zero = torch.zeros(2, dtype=torch.float64)
    assert own_share({"g": zero.float()}, {"g": zero})["g"].tolist() == [0, 0]


def test_leave_one_out_needs_the_sites_share():
    with pytest.raises(ConfigurationError, match="own share"):
        judge(fresh(ONE, settings()), evidence(vector(1), vector(1)), ONE, settings(leave_one_out=True))


def test_averaged_updates_are_judged_instead_of_single_rounds():
    """The site drifts along (1, 0) like the lead, with a large swing that only single rounds see."""
    rules = settings(patience=2, update_memory=0.5)
    lead = vector(1, 0)
    swings = [vector(1, 0), vector(-0.2, 3), vector(-0.2, -3)]
    single, averaged = fresh(ONE, rules), fresh(ONE, rules)
    for number, site in enumerate(swings, 1):
        single = judge(single, evidence(lead, site, number), ONE, settings(patience=2))
        averaged = judge(averaged, evidence(lead, site, number), ONE, rules)
    assert single.shared["g"].tolist() == [False]
    assert averaged.patience["g"].tolist() == [2]
    assert averaged.site_average["w"][0].tolist() == pytest.approx([0.1, -0.75])
    assert not single.site_average


def test_importance_follows_the_round_itself_where_averages_are_judged():
    rules = settings(update_memory=0.9)
    state = judge(fresh(ONE, rules), evidence(vector(1, 0), vector(1, 0)), ONE, rules)
    state = judge(state, evidence(vector(0, 9), vector(0, 3), 2), ONE, rules)
    assert state.importance["g"].item() == pytest.approx(0.95 * 0.975 + 0.05 * 3 * 0.5)


def test_an_average_starts_with_its_first_update():
    first = average_updates({}, vector(4, 8), 0.75)
    assert first["w"].tolist() == [[4, 8]]
    assert average_updates(first, vector(0, 0), 0.75)["w"].tolist() == [[3, 6]]


def test_agreement_within_the_noise_margin_counts_as_none():
    group = [FilterGroup("g", (("w", 0), ("b", 0)), 4)]
    of_four_values = {"w": torch.zeros(4, 3), "b": torch.zeros(4)}
    cosines = {"g": torch.tensor([-0.9, -0.4, 0.4, 0.6])}
    judged = beyond_noise(cosines, of_four_values, group, 1.0)  # 1 / sqrt(4) = 0.5
    assert judged["g"].tolist() == pytest.approx([-0.9, 0, 0, 0.6])
    assert beyond_noise(cosines, of_four_values, group, 0.0)["g"].tolist() == cosines["g"].tolist()


def test_the_margin_is_that_of_independent_random_updates():
    generator = torch.Generator().manual_seed(0)
    wide = [FilterGroup("g", (("w", 0),), 4000)]
    lead, site = ({"w": torch.randn(4000, 50, generator=generator)} for _ in range(2))
    judged = beyond_noise(agreement(lead, site, wide), lead, wide, 2.0)
    assert (judged["g"] != 0).double().mean().item() == pytest.approx(0.0455, abs=0.01)


# --- the same as a server that sees every site -------------------------------------------------------------------


class Server:
    """The publication's server, written from its equations with loops over sites and filters: it holds every
    site's update, patience, mask and importance, and looks at one filter at a time in plain numbers."""

    def __init__(self, sites, cases, rules):
        self.cases, self.total_cases, self.rules = cases, sum(cases.values()), rules
        filters = [(g.name, j) for g in GROUPS for j in range(g.n_filters)]
        self.patience = {s: dict.fromkeys(filters, rules.patience) for s in sites}
        self.h = {s: dict.fromkeys(filters, 1.0) for s in sites}
        self.shared = {s: dict.fromkeys(filters, True) for s in sites}

    def filters(self, parameters):
        return {
            (g.name, j): filter_matrix(parameters, g)[j].double().numpy() for g in GROUPS for j in range(g.n_filters)
        }

    def aggregate(self, own, decoders):
        """own and decoders as {filter: vector}; return the lead's aggregated filters."""
        result = {}
        for key, value in own.items():
            sharing = [s for s in decoders if self.shared[s][key]]
            weight = sum(self.h[s][key] for s in sharing)
            mean = sum(self.h[s][key] * decoders[s][key] for s in sharing) / weight if sharing else value
            result[key] = LAM * value + (1 - LAM) * mean
        return result

    def judge(self, round_number, lead_updates, site_updates):
        """lead_updates: {site: {filter: dW_s as this site is judged by}}."""
        if round_number <= self.rules.warm_up_rounds:
            return
        for site, updates in site_updates.items():
            for key, mine in updates.items():
                if self.shared[site][key]:
                    self.judge_filter(site, key, lead_updates[site][key], mine)

    def judge_filter(self, site, key, judged_by, mine):
        lead_norm, my_norm = np.linalg.norm(judged_by), np.linalg.norm(mine)
        cosine = judged_by @ mine / (lead_norm * my_norm) if lead_norm and my_norm else 0.0
        if cosine < 0:
            self.patience[site][key] -= 1
        elif cosine > 0:
            self.patience[site][key] = self.rules.patience
        if my_norm:
            share = self.cases[site] / self.total_cases
            self.h[site][key] = 0.95 * self.h[site][key] + 0.05 * (lead_norm / my_norm) * share
        if self.patience[site][key] == 0:
            self.shared[site][key], self.h[site][key] = False, 0.0


@dataclasses.dataclass(frozen=True)
class Sent:
    """What a site keeps of its last round, to judge it when the lead's new decoder arrives."""

    lead_before: dict
    site_update: dict
    share_sent: dict  # h as sent


def train(start, direction, generator):
    """A site's local training: a step of its own, noise, and filters that do not move at all."""
    noise = random_parameters(generator, 0.3)
    after = {name: start[name] + 0.1 * (direction[name] + noise[name]) for name in start}
    after["conv.weight"][3], after["conv.bias"][3] = start["conv.weight"][3], start["conv.bias"][3]
    return after


@pytest.mark.parametrize("leave_out", [False, True], ids=["with the site's own part", "leave one out"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sites_reach_the_numbers_of_a_server_that_holds_all_updates_and_masks(seed, leave_out):
    generator = torch.Generator().manual_seed(seed)
    rules = PersonalizationSettings(patience=3, warm_up_rounds=2, leave_one_out=leave_out)
    cases = {"a": 20, "b": 5, "c": 12}
    own_ways = {site: random_parameters(generator) for site in cases}
    lead_way = random_parameters(generator)
    lead = random_parameters(generator)
    local = dict.fromkeys(cases, lead)
    states = {site: fresh(GROUPS, rules) for site in cases}
    server = Server(cases, cases, rules)

    for number in range(1, 16):
        total, sent, decoders = WeightedSum(), {}, {}
        for site, state in states.items():
            # Only shared filters come down and go up; what the site sees of the lead is zero elsewhere.
            received = select(lead, GROUPS, state.shared)
            start = overlay(local[site], received, GROUPS)
            local[site] = train(start, own_ways[site], generator)
            up = select(local[site], GROUPS, state.shared)
            total += weigh_filters(up, state.importance, GROUPS)
            sent[site] = Sent(dense(received, GROUPS), delta(local[site], start), dict(state.importance))
            decoders[site] = server.filters(local[site])
        aggregated = decoder_mean(total, lead, GROUPS, LAM)
        reference = server.aggregate(server.filters(lead), decoders)
        for key, value in server.filters(aggregated).items():
            assert value == pytest.approx(reference[key], abs=1e-6)
        lead_after = train(aggregated, lead_way, generator)

        denominators = share_denominators(total, GROUPS, LAM)
        site_updates = {site: server.filters(s.site_update) for site, s in sent.items()}
        server.judge(number, leads_updates(server, lead, aggregated, lead_after, site_updates, leave_out), site_updates)
        for site, state in states.items():
            lead_update = delta(dense(select(lead_after, GROUPS, state.shared), GROUPS), sent[site].lead_before)
            share = own_share(sent[site].share_sent, denominators) if leave_out else None
            seen = RoundEvidence(number, lead_update, sent[site].site_update, cases[site] / 37, share)
            states[site] = judge(state, seen, GROUPS, rules)
        lead = lead_after
        assert_equal_to_server(states, server)

    kept = [mask for state in states.values() for group in state.shared.values() for mask in group.tolist()]
    assert 0.1 < np.mean(kept) < 0.9, "the comparison should see filters of both kinds"


def leads_updates(server, before, aggregated, after, site_updates, leave_out):
    """dW_s for each site; with leave-one-out built up from the other sites' updates and the lead's own training."""
    before, aggregated, after = map(server.filters, (before, aggregated, after))
    if not leave_out:
        return {site: {key: after[key] - before[key] for key in after} for site in site_updates}
    result = {}
    for site in site_updates:
        result[site] = {}
        for key in after:
            weight = sum(server.h[s][key] for s in site_updates)
            others = sum(server.h[s][key] * site_updates[s][key] for s in site_updates if s != site)
            result[site][key] = (after[key] - aggregated[key]) + ((1 - LAM) * others / weight if weight else 0.0)
    return result


def assert_equal_to_server(states, server):
    for site, state in states.items():
        for group in GROUPS:
            for j in range(group.n_filters):
                key = (group.name, j)
                assert state.patience[group.name][j].item() == server.patience[site][key]
                assert state.shared[group.name][j].item() == server.shared[site][key]
                assert state.importance[group.name][j].item() == pytest.approx(server.h[site][key], rel=1e-4)


# --- boundaries --------------------------------------------------------------------------------------------------


def test_a_state_is_never_changed_in_place():
    state, before = fresh(GROUPS, settings()), fresh(GROUPS, settings())
    lead, site = constant(1), constant(-1)
    judge(state, evidence(lead, site), GROUPS, settings(update_memory=0.5))
    assert_same_state(state, before)
    assert all(torch.equal(lead[name], constant(1)[name]) for name in lead)
    assert all(torch.equal(site[name], constant(-1)[name]) for name in site)


def test_one_judgement_by_given_numbers():
    group = [FilterGroup("g", (("w", 0),), 2)]
    state = update(
        fresh(group, settings()),
        {"g": torch.tensor([-0.1, 0.1], dtype=torch.float64)},
        {"g": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"g": torch.tensor([2.0, 1.0], dtype=torch.float64)},
        1.0,
        settings(),
    )
    assert state.patience["g"].tolist() == [2, 3]
    assert state.importance["g"].tolist() == pytest.approx([0.95 + 0.025, 0.95 + 0.1])


def test_norms_are_those_of_whole_filters():
    assert compare(vector(3, 4), vector(0, 1), ONE).lead_norms["g"].tolist() == [5]


@pytest.mark.parametrize(
    "wrong",
    [
        {"patience": 0},
        {"warm_up_rounds": -1},
        {"importance_memory": 1.5},
        {"max_ratio": 0.0},
        {"max_ratio": math.inf},
        {"update_memory": 1.0},
        {"noise_margin": -1.0},
        {"noise_margin": math.nan},
    ],
)
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} is .*; expected"):
        PersonalizationSettings(**wrong)


def test_a_share_of_cases_above_one_is_refused():
    with pytest.raises(ConfigurationError, match=r"share of cases is 1\.5"):
        judge(fresh(ONE, settings()), evidence(vector(1), vector(1), case_share=1.5), ONE, settings())


def test_updates_of_different_form_are_refused():
    with pytest.raises(ParameterError, match="The lead's update"):
        judge(fresh(ONE, settings()), evidence(vector(1), vector(1, 2)), ONE, settings())
