"""Region-aware fusion against its formula, written out."""

import torch

from nnunet_fedmepd.networks.fusion import fuse_regions, normalize_gates, pool_regions, region_probabilities


def random(*shape):
    return torch.rand(*shape, dtype=torch.float64)


def test_fusion_is_gating_weighting_concatenating_and_mixing():
    features, regions, gates, mixing = random(2, 3, 4, 7), random(2, 3, 7), random(2, 3, 3), random(5, 3, 4)
    gated = torch.einsum("blm,bmcv->blcv", gates, features)
    concatenated = (regions[:, :, None] * gated).flatten(1, 2)
    expected = torch.einsum("ok,bkv->bov", mixing.flatten(1), concatenated)
    torch.testing.assert_close(fuse_regions(features.flatten(1, 2), regions, gates, mixing), expected)


def test_fusion_has_the_right_gradient():
    inputs = [random(2, 6, 3), random(2, 2, 3), random(2, 2, 3), random(2, 2, 2)]
    assert torch.autograd.gradcheck(fuse_regions, [x.requires_grad_() for x in inputs])


def test_pooling_is_the_mean_over_a_region():
    features = torch.tensor([[[1.0, 3.0, 100.0]]])
    regions = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    torch.testing.assert_close(pool_regions(features, regions), torch.tensor([[[2.0], [0.0]]]))


def test_pooling_has_the_right_gradient():
    features, regions = random(2, 3, 4).requires_grad_(), random(2, 2, 4)
    assert torch.autograd.gradcheck(lambda f: pool_regions(f, regions), [features])


def test_gates_of_the_modalities_present_sum_to_one_and_absent_ones_are_zero():
    logits = torch.tensor([[[1.0, 1.0, 9.0]]])
    gates = normalize_gates(logits, torch.tensor([[True, True, False]]))
    assert gates.tolist() == [[[0.5, 0.5, 0.0]]]


def test_classes_and_overlapping_regions_both_partition_a_voxel():
    logits = torch.tensor([[[0.0], [0.0]]])
    assert region_probabilities(logits, overlapping=False).flatten().tolist() == [0.5, 0.5]
    assert region_probabilities(logits, overlapping=True).flatten().tolist() == [0.5, 0.5, 0.5]
