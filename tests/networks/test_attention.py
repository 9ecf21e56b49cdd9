"""Attention as the report shows it."""

from __future__ import annotations

import torch

from nnunet_fedmepd.networks.attention import attend, relative_entropy
from tests.networks.small_network import build_network, give_anchors

IMAGE = torch.randn(4, 8, 16, 16, generator=torch.Generator().manual_seed(0))


def test_attention_sums_to_one_over_the_anchors_at_every_scale():
    network = build_network()
    give_anchors(network)
    scales = attend(network, IMAGE)
    assert [tuple(scale.shape) for scale in scales] == [(4, 2, 16, 16), (4, 2, 8, 8), (4, 2, 4, 4)]
    for scale in scales:
        torch.testing.assert_close(scale.sum((0, 1)), torch.ones(scale.shape[2:]))


def test_attention_is_that_of_the_middle_slice_and_leaves_the_network_as_it_was():
    network = build_network()
    give_anchors(network)
    before = network(IMAGE[None])
    scale = attend(network, IMAGE)[0]
    network.decoder.deep_supervision = True
    fused = network.eval()(IMAGE[None]).fused[0]
    whole = network.calibrations[0].attention(fused).mean(1)[0].unflatten(0, (4, 2))
    torch.testing.assert_close(scale, whole[:, :, 4])
    network.decoder.deep_supervision = False
    torch.testing.assert_close(network(IMAGE[None]), before)


def test_without_anchors_or_calibration_there_is_no_attention():
    assert attend(build_network(), IMAGE) is None
    off = build_network(calibration="off")
    give_anchors(off)
    assert attend(off, IMAGE) is None


def test_scales_that_are_not_calibrated_are_left_out():
    network = build_network(calibration_scale=1)
    give_anchors(network)
    assert [tuple(scale.shape) for scale in attend(network, IMAGE)] == [(4, 2, 8, 8), (4, 2, 4, 4)]


def test_entropy_is_one_for_uniform_attention_and_zero_for_a_single_anchor():
    uniform = torch.zeros(2, 2, 1, 1)
    uniform[0], uniform[1, 0] = 1 / 3, 1 / 3  # the fourth anchor is not valid
    torch.testing.assert_close(relative_entropy(uniform), torch.ones(1, 1))
    one = torch.zeros(2, 2, 1, 2)
    one[0, 0, 0, 0] = one[1, 1, 0, 1] = 1
    torch.testing.assert_close(relative_entropy(one), torch.zeros(1, 2))


def test_two_dimensional_networks_attend_over_their_one_slice():
    network = build_network(dim=2)
    give_anchors(network)
    assert attend(network, IMAGE[:, 0])[0].shape == (4, 2, 16, 16)
