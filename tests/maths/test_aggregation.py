"""Means over sites, with values that can be checked by hand."""

from __future__ import annotations

import itertools

import pytest
import torch

from nnunet_fedmepd.maths.aggregation import (
    RunningSum,
    WeightedSum,
    decoder_mean,
    encoder_contribution,
    encoder_means,
    filter_contribution,
    share_denominators,
    weigh_encoders,
    weigh_filters,
)
from nnunet_fedmepd.maths.exact_sums import exact
from nnunet_fedmepd.maths.parameters import (
    FilterGroup,
    FilterSubset,
    ParameterError,
    select,
    uniform_masks,
)
from tests.maths.filter_rows import filter_matrix

CONV = FilterGroup("conv", (("conv.weight", 0), ("conv.bias", 0)), 2)
UP = FilterGroup("up", (("up.weight", 1),), 3)
GROUPS = [CONV, UP]


def encoder(modality, value):
    return {f"encoders.{modality}.weight": torch.full((2,), float(value))}


def decoder(value):
    """A decoder whose filters all have one value."""
    shapes = {"conv.weight": (2, 3), "conv.bias": (2,), "up.weight": (4, 3)}
    return {name: torch.full(shape, float(value)) for name, shape in shapes.items()}


def random_decoder(seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=generator) * scale for name, p in decoder(0).items()}


def masks(conv, up):
    return {"conv": torch.tensor(conv) > 0, "up": torch.tensor(up) > 0}


def importance(conv, up):
    return {"conv": torch.tensor(conv).float(), "up": torch.tensor(up).float()}


ONES = importance([1, 1], [1, 1, 1])
ALL = uniform_masks(GROUPS, True)


def contribution(parameters, shared=ALL, h=ONES):
    return weigh_filters(select(parameters, GROUPS, shared), h, GROUPS)


def rows(parameters):
    """The value of each filter, where all values of a filter are the same."""
    for group in GROUPS:
        matrix = filter_matrix(parameters, group)
        assert (matrix == matrix[:, :1]).all()
    return [filter_matrix(parameters, group)[:, 0].tolist() for group in GROUPS]


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_encoder_becomes_the_plain_mean_over_the_sites_that_own_its_modality():
    own = {"T1": encoder("T1", 9), "FLAIR": encoder("FLAIR", 9)}
    total = weigh_encoders({"T1": encoder("T1", 1), "FLAIR": encoder("FLAIR", 5)}) + weigh_encoders(
        {"T1": encoder("T1", 2)}
    )
    means = encoder_means(total, own)
    assert means["T1"]["encoders.T1.weight"].tolist() == [1.5, 1.5]
    assert means["FLAIR"]["encoders.FLAIR.weight"].tolist() == [5, 5]


def test_a_site_without_flair_never_moves_the_flair_encoder():
    own = {"T1": encoder("T1", 9), "FLAIR": encoder("FLAIR", 9)}
    means = encoder_means(weigh_encoders({"T1": encoder("T1", 1)}), own)
    assert_equal(means["FLAIR"], own["FLAIR"])


def test_encoders_can_be_weighted_by_cases():
    total = weigh_encoders({"T1": encoder("T1", 1)}, 30) + weigh_encoders({"T1": encoder("T1", 2)}, 10)
    assert encoder_means(total, {"T1": encoder("T1", 9)})["T1"]["encoders.T1.weight"].tolist() == [1.25, 1.25]


def test_a_round_in_which_no_site_replies_leaves_everything_as_it_was():
    encoders = {"T1": encoder("T1", 9)}
    assert_equal(encoder_means(WeightedSum(), encoders)["T1"], encoders["T1"])
    assert_equal(decoder_mean(WeightedSum(), random_decoder(0), GROUPS), random_decoder(0))
    assert share_denominators(WeightedSum(), GROUPS)["up"].tolist() == [0, 0, 0]


def test_a_filter_moves_to_the_importance_weighted_mean_of_those_who_share_it():
    """Columns: conv 0, conv 1 | up 0, up 1, up 2; lam = 0.5, the lead's filters are 0.

    site a (8):   shared h=1, shared h=3 | shared h=1, personal, personal
    site b (16):  shared h=1, shared h=1 | personal,   shared h=2, personal
    mean:         12,         10         | 8,          16,         -
    """
    a = contribution(decoder(8), masks([1, 1], [1, 0, 0]), importance([1, 3], [1, 0, 0]))
    b = contribution(decoder(16), masks([1, 1], [0, 1, 0]), importance([1, 1], [0, 2, 0]))
    assert rows(decoder_mean(a + b, decoder(0), GROUPS, lead_share=0.5)) == [[6, 5], [4, 8, 0]]
    assert {name: h.tolist() for name, h in share_denominators(a + b, GROUPS, 0.5).items()} == {
        "conv": [4, 8],
        "up": [2, 4, 0],
    }
    nothing = share_denominators(a + b, GROUPS, lead_share=1.0)
    assert all(h.tolist() == [0] * len(h) for h in nothing.values()), "a lead that keeps all is moved by nobody"


def test_the_lead_keeps_three_tenths_of_its_own_filter():
    mixed = decoder_mean(contribution(decoder(10)), decoder(20), GROUPS)
    assert rows(mixed) == [pytest.approx([13] * 2), pytest.approx([13] * 3)]


def test_filters_that_nobody_shares_keep_the_leads_value_to_the_bit():
    nobody = contribution(random_decoder(1), uniform_masks(GROUPS, False))
    assert_equal(decoder_mean(nobody + nobody, random_decoder(0), GROUPS), random_decoder(0))


def test_a_shared_filter_without_importance_has_no_say():
    silent = contribution(random_decoder(1), h=importance([0, 0], [0, 0, 0]))
    assert_equal(decoder_mean(silent, random_decoder(0), GROUPS), random_decoder(0))


def test_importance_of_a_personal_filter_is_not_counted():
    personal = contribution(decoder(8), masks([1, 0], [1, 1, 1]), ONES)
    assert share_denominators(personal, GROUPS, 0.0)["conv"].tolist() == [1, 0]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("n_sites", [1, 2, 3, 7])
def test_identical_sites_aggregate_to_themselves_to_the_bit(scale, n_sites):
    generator = torch.Generator().manual_seed(n_sites)
    same = random_decoder(5, scale)
    total, encoders = WeightedSum(), WeightedSum()
    for _ in range(n_sites):
        h = {group.name: torch.rand(group.n_filters, generator=generator) + 0.1 for group in GROUPS}
        total += contribution(same, h=h)
        encoders += weigh_encoders({"T1": same})
    assert_equal(decoder_mean(total, same, GROUPS), same)
    assert_equal(decoder_mean(total, random_decoder(6), GROUPS, lead_share=0.0), same)
    assert_equal(encoder_means(encoders, {"T1": random_decoder(6)})["T1"], same)


def test_sums_are_equal_to_the_bit_in_every_order_and_bracketing():
    """Values from 1e-6 to 1e6, so that adding floating-point numbers would depend on the order."""
    generator = torch.Generator().manual_seed(0)
    sites = []
    for seed in range(5):
        h = {group.name: torch.rand(group.n_filters, generator=generator) for group in GROUPS}
        sites.append(contribution(random_decoder(seed, 10.0 ** (3 * seed - 6)), h=h))
    expected = decoder_mean(sum(sites, WeightedSum()), random_decoder(9), GROUPS)
    for order in itertools.permutations(sites):
        assert_equal(decoder_mean(sum(order, WeightedSum()), random_decoder(9), GROUPS), expected)
    a, b, c, d, e = sites
    assert_equal(decoder_mean((a + b) + (c + (d + e)), random_decoder(9), GROUPS), expected)


def test_a_streamed_sum_is_that_of_its_terms_whatever_their_order_and_size():
    """Sizes beyond the blocks that are worked on; filters along either axis."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"wide": (3, 40_000), "tall": (40_000, 3), "flat": (70_001,), "empty": (3, 0)}
    groups = [
        FilterGroup("three", (("wide", 0), ("tall", 1), ("empty", 0)), 3),
        FilterGroup("many", (("flat", 0),), 70_001),
    ]
    sites = []
    for exponent in (-6, 0, 5):
        values = {n: torch.randn(shape, generator=generator) * 10.0**exponent for n, shape in shapes.items()}
        h = {group.name: torch.rand(group.n_filters, generator=generator) for group in groups}
        everything = select(values, groups, uniform_masks(groups, True))
        sites.append(filter_contribution(everything, h, groups))
    totals = []
    for order in itertools.permutations(sites):
        running = RunningSum()
        for site in order:
            running.add(site)
        totals.append(running.total())
    for name in shapes:
        first = totals[0].values[name]
        assert all(torch.equal(first.coarse, other.values[name].coarse) for other in totals)
        assert all(torch.equal(first.fine, other.values[name].fine) for other in totals)
        terms = [site.values[name][0].double() * site.values[name][1] for site in sites]
        torch.testing.assert_close(first.value(), sum(terms), rtol=1e-14, atol=1e-9)
        alone = exact(terms[0], name) + exact(terms[1], name) + exact(terms[2], name)
        assert torch.equal(first.coarse, alone.coarse)
        assert torch.equal(first.fine, alone.fine)


def test_a_contribution_of_another_shape_leaves_no_trace_in_a_streamed_sum():
    running = RunningSum()
    running.add(encoder_contribution({"T1": {"v": torch.ones(2), "w": torch.ones(2)}}))
    with pytest.raises(ParameterError, match=r"\(2,\) and \(3,\) were to be summed"):
        running.add(encoder_contribution({"T1": {"v": torch.ones(2), "w": torch.ones(3)}}))
    assert running.total().values["v"].value().tolist() == [1, 1]
    assert running.total().n_terms == 1


def test_a_float32_value_is_kept_exactly_and_sums_do_not_cancel():
    values = torch.tensor([1e6, -3.0, 2.0**-48, 0.1])
    assert torch.equal(exact(values, "x").value().float(), values)
    tiny, large = exact(torch.tensor([2.0**-48]), "x"), exact(torch.tensor([2.0**22]), "x")
    minus = exact(torch.tensor([-(2.0**22)]), "x")
    assert (large + tiny + minus).value().tolist() == [2.0**-48]


def test_as_many_sites_as_are_allowed_do_not_overflow():
    total = weigh_encoders({"T1": encoder("T1", 2**23)})
    for _ in range(15):
        total = total + total
    assert encoder_means(total, {"T1": encoder("T1", 0)})["T1"]["encoders.T1.weight"].tolist() == [2**23, 2**23]
    with pytest.raises(ParameterError, match="at most 32768"):
        total + total


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_number_types_are_kept(dtype):
    own = {name: p.to(dtype) for name, p in random_decoder(0).items()}
    mixed = decoder_mean(contribution(own), own, GROUPS)
    means = encoder_means(weigh_encoders({"T1": own}), {"T1": own})["T1"]
    assert {p.dtype for p in (*mixed.values(), *means.values())} == {dtype}


def test_inputs_stay_as_they_were():
    own, site = random_decoder(0), random_decoder(1)
    first = contribution(site)
    before = first.values["conv.weight"].value()
    mixed = decoder_mean(first + contribution(site), own, GROUPS)
    mixed["conv.weight"].zero_()
    decoder_mean(WeightedSum(), own, GROUPS)["conv.weight"].zero_()
    encoder_means(WeightedSum(), {"T1": own})["T1"]["conv.weight"].zero_()
    assert_equal(own, random_decoder(0))
    assert_equal(site, random_decoder(1))
    assert torch.equal(first.values["conv.weight"].value(), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e8])
def test_a_diverged_site_cannot_enter_a_sum(value):
    with pytest.raises(ParameterError, match=r"'conv\.weight' holds a value that is not finite or larger than"):
        contribution(decoder(value))
    with pytest.raises(ParameterError, match=r"'encoders\.T1\.weight' holds a value that is not finite"):
        weigh_encoders({"T1": encoder("T1", value)})


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_site_must_have_a_positive_weight(weight):
    with pytest.raises(ParameterError, match="expected a positive number"):
        weigh_encoders({"T1": encoder("T1", 1)}, weight)


@pytest.mark.parametrize("h", [importance([-1, 1], [1, 1, 1]), importance([1], [1, 1, 1]), {"up": torch.ones(3)}])
def test_importance_must_fit_the_filters(h):
    with pytest.raises(ParameterError, match="The importance of filter group 'conv'"):
        contribution(decoder(1), h=h)


def test_sites_of_another_shape_are_refused():
    with pytest.raises(ParameterError, match=r"\(2,\) and \(3,\) were to be summed"):
        weigh_encoders({"T1": {"w": torch.ones(2)}}) + weigh_encoders({"T1": {"w": torch.ones(3)}})
    with pytest.raises(ParameterError, match=r"The sites' 'w' is of shape \(2,\); expected shape \(1, 2\)"):
        encoder_means(weigh_encoders({"T1": {"w": torch.ones(2)}}), {"T1": {"w": torch.ones(1, 2)}})
    with pytest.raises(ParameterError, match="The sites' 'v' is absent"):
        encoder_means(weigh_encoders({"T1": {"w": torch.ones(2)}}), {"T1": {"v": torch.ones(2)}})


def test_values_beyond_the_mask_are_refused():
    wrong = FilterSubset(select(decoder(1), GROUPS, ALL).values, masks([1, 0], [1, 1, 1]))
    with pytest.raises(ParameterError, match="should have the 1 filters"):
        weigh_filters(wrong, ONES, GROUPS)
