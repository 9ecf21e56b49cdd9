"""Filters are found, taken out and put back by name and axis."""

from __future__ import annotations

import pytest
import torch

from nnunet_fedmepd.maths.parameters import (
    FilterGroup,
    FilterSubset,
    ParameterError,
    check_alike,
    combine,
    delta,
    dense,
    overlay,
    partition,
    select,
    uniform_masks,
)
from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet
from tests.maths.filter_rows import filter_matrix

CONV = FilterGroup("conv", (("conv.weight", 0), ("conv.bias", 0)), 3)
UP = FilterGroup("up", (("up.weight", 1), ("up.bias", 0)), 2)
GROUPS = [CONV, UP]


def decoder():
    """Two input channels a convolution: the weight is (F, C, 1), that of the transposed one (C, F, 1)."""
    return {
        "conv.weight": torch.tensor([[10.0, 11], [20, 21], [30, 31]])[..., None],
        "conv.bias": torch.tensor([1.0, 2, 3]),
        "up.weight": torch.tensor([[100.0, 200], [101, 201]])[..., None],
        "up.bias": torch.tensor([4.0, 5]),
    }


def masks(conv, up):
    return {"conv": torch.tensor(conv) > 0, "up": torch.tensor(up) > 0}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_a_filter_is_one_slice_of_every_member_of_its_group():
    assert filter_matrix(decoder(), CONV).tolist() == [[10, 11, 1], [20, 21, 2], [30, 31, 3]]


def test_filters_of_a_transposed_convolution_lie_along_its_second_axis():
    assert filter_matrix(decoder(), UP).tolist() == [[100, 101, 4], [200, 201, 5]]


def test_only_shared_filters_are_in_the_form_that_travels():
    shared, personal = partition(decoder(), GROUPS, masks([1, 0, 1], [0, 1]))
    assert shared.values["conv.weight"][..., 0].tolist() == [[10, 11], [30, 31]]
    assert shared.values["conv.bias"].tolist() == [1, 3]
    assert shared.values["up.weight"][..., 0].tolist() == [[200], [201]]
    assert personal.values["conv.weight"][..., 0].tolist() == [[20, 21]]
    assert personal.values["up.bias"].tolist() == [4]
    assert {name: mask.tolist() for name, mask in personal.masks.items()} == {
        "conv": [False, True, False],
        "up": [True, False],
    }


@pytest.mark.parametrize("conv", [[0, 0, 0], [1, 1, 1], [1, 0, 1], [0, 1, 0]])
@pytest.mark.parametrize("up", [[0, 0], [1, 1], [0, 1]])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_combining_the_parts_gives_back_the_decoder_to_the_bit(conv, up, dtype):
    whole = {name: (torch.randn_like(p) * 1e3).to(dtype) for name, p in decoder().items()}
    assert_equal(combine(*partition(whole, GROUPS, masks(conv, up)), GROUPS), whole)


def test_the_networks_own_filters_cover_its_whole_fusion_decoder():
    network = FedMEPDNet(
        2, 4, 2, [4, 8], torch.nn.Conv3d, [[3] * 3] * 2, [[1] * 3, [2] * 3], 1, 1, True,
        torch.nn.InstanceNorm3d, {"affine": True}, nonlin=torch.nn.LeakyReLU,
        modalities=["T1", "T2"], canonical_modalities=["T1", "T1ce", "T2", "FLAIR"],
    )  # fmt: skip
    parameters, groups = dict(network.named_parameters()), network.decoder_filters()
    whole = {name: parameters[name].detach() for name in network.parts().fusion_decoder}
    every_other = {group.name: torch.arange(group.n_filters) % 2 == 0 for group in groups}
    shared, personal = partition(whole, groups, every_other)
    assert sum(v.numel() for v in (*shared.values.values(), *personal.values.values())) == sum(
        p.numel() for p in whole.values()
    )
    assert_equal(combine(shared, personal, groups), whole)


@pytest.mark.parametrize("conv", [[0, 0, 0], [1, 1, 1], [1, 0, 1]])
def test_partitioning_a_combination_gives_back_the_parts(conv):
    shared, personal = partition(decoder(), GROUPS, masks(conv, [0, 1]))
    again = partition(combine(shared, personal, GROUPS), GROUPS, shared.masks)
    for part, before in zip(again, (shared, personal), strict=True):
        assert_equal(part.values, before.values)
        assert_equal(part.masks, before.masks)


def test_a_site_puts_the_leads_shared_filters_over_its_own():
    lead = {name: -p for name, p in decoder().items()}
    mixed = overlay(decoder(), select(lead, GROUPS, masks([1, 0, 0], [0, 1])), GROUPS)
    assert filter_matrix(mixed, CONV).tolist() == [[-10, -11, -1], [20, 21, 2], [30, 31, 3]]
    assert filter_matrix(mixed, UP).tolist() == [[100, 101, 4], [-200, -201, -5]]


def test_filters_that_were_not_chosen_are_zero_in_the_dense_form():
    spread = dense(select(decoder(), GROUPS, masks([0, 1, 0], [0, 0])), GROUPS)
    assert filter_matrix(spread, CONV).tolist() == [[0, 0, 0], [20, 21, 2], [0, 0, 0]]
    assert not filter_matrix(spread, UP).any()


def test_inputs_stay_as_they_were_and_results_do_not_share_their_memory():
    whole, chosen = decoder(), masks([1, 0, 1], [0, 1])
    shared, personal = partition(whole, GROUPS, chosen)
    for result in (shared.values, personal.values, combine(shared, personal, GROUPS), overlay(whole, shared, GROUPS)):
        for tensor in result.values():
            tensor.zero_()
    for mask in (*shared.masks.values(), *personal.masks.values()):
        mask.zero_()
    assert_equal(whole, decoder())
    assert_equal(chosen, masks([1, 0, 1], [0, 1]))


def test_a_delta_is_after_minus_before():
    after = {name: p + 0.5 for name, p in decoder().items()}
    assert all((d == 0.5).all() for d in delta(after, decoder()).values())


def test_uniform_masks_choose_all_or_nothing():
    assert {name: mask.tolist() for name, mask in uniform_masks(GROUPS, True).items()} == {
        "conv": [True] * 3,
        "up": [True] * 2,
    }
    assert not any(mask.any() for mask in uniform_masks(GROUPS, False).values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("up.bias"), "lack 1 of 4 parameters, the first is 'up.bias'"),
        (lambda p: p.update(extra=torch.zeros(1)), "have 1 unknown parameters, the first is 'extra'"),
        (lambda p: p.update({"up.bias": torch.zeros(3)}), r"'up.bias' of shape \(3,\).*expected \(2,\)"),
        (lambda p: p.update({"up.bias": torch.zeros(2).half()}), "torch.float16; expected .* torch.float32"),
    ],
    ids=["missing", "unknown", "shape", "number type"],
)
def test_parameters_that_differ_in_form_are_named(change, message):
    found = decoder()
    change(found)
    with pytest.raises(ParameterError, match=f"Site c3's parameters.*{message}"):
        check_alike(found, decoder(), "Site c3's parameters")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([CONV], "'up.bias' is in no filter group"),
        ([*GROUPS, FilterGroup("gone", (("gone.weight", 0),), 1)], "'gone.weight' is in a filter group, but not in"),
        ([*GROUPS, FilterGroup("again", (("conv.bias", 0),), 3)], "'conv.bias' is in two filter groups"),
        ([CONV, FilterGroup("up", (("up.weight", 2), ("up.bias", 0)), 2)], "'up.weight' .* along axis 2"),
        ([CONV, FilterGroup("up", (("up.weight", 1), ("up.bias", 1)), 2)], "'up.bias' .* along axis 1"),
    ],
)
def test_groups_must_cover_the_decoder_once(groups, message):
    with pytest.raises(ParameterError, match=message):
        select(decoder(), groups, uniform_masks(groups, True))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"conv": torch.ones(3) > 0}, "'up' has no mask"),
        (masks([1, 1, 1], [1, 1]) | {"gone": torch.ones(1) > 0}, "'gone' has a mask, but no such group"),
        (masks([1, 1], [1, 1]), r"'conv' has shape \(2,\).*expected \(3,\)"),
        ({"conv": torch.ones(3), "up": torch.ones(2) > 0}, "'conv' has .* torch.float32.* and torch.bool"),
    ],
)
def test_a_mask_must_fit_its_group(chosen, message):
    with pytest.raises(ParameterError, match=message):
        partition(decoder(), GROUPS, chosen)


def test_values_that_do_not_fit_their_mask_are_refused():
    shared = select(decoder(), GROUPS, masks([1, 0, 0], [1, 1]))
    wrong = FilterSubset(shared.values, masks([1, 1, 0], [1, 1]))
    with pytest.raises(ParameterError, match=r"'conv.weight' of shape \(1, 2, 1\) should have the 2 filters"):
        dense(wrong, GROUPS)


def test_parts_of_different_partitions_are_not_combined():
    shared, _ = partition(decoder(), GROUPS, masks([1, 0, 0], [1, 1]))
    _, personal = partition(decoder(), GROUPS, masks([1, 1, 0], [1, 1]))
    with pytest.raises(ParameterError, match="'conv' do not complete each other"):
        combine(shared, personal, GROUPS)
