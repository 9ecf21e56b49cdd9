"""Calibration against plain multi-head attention, and its promises about anchors that are not there."""

import pytest
import torch
from torch import nn

from nnunet_fedmepd.networks.calibration import AnchorCalibration


def layer(mode="residual", width=6, n_heads=2, head_width=3, **changes):
    calibration = AnchorCalibration(width, 2, 3, n_heads, mode, head_width, **changes).double()
    torch.manual_seed(0)
    for linear in (calibration.query, calibration.key, calibration.value, calibration.out):
        nn.init.xavier_uniform_(linear.weight)
        nn.init.normal_(linear.bias)
    anchors = torch.randn(2, 3, width, dtype=torch.float64)
    calibration.set_anchors(anchors, torch.ones(2, 3, dtype=torch.bool), in_use=True)
    return calibration


def as_torch_attention(calibration):
    width = calibration.anchors.shape[-1]
    attention = nn.MultiheadAttention(width, calibration.n_heads, batch_first=True).double()
    projections = (calibration.query, calibration.key, calibration.value)
    attention.in_proj_weight.data = torch.cat([p.weight for p in projections]).detach()
    attention.in_proj_bias.data = torch.cat([p.bias for p in projections]).detach()
    attention.out_proj.load_state_dict(calibration.out.state_dict())
    return attention


def test_two_convolutions_give_the_numbers_of_multi_head_attention():
    calibration = layer("replace")
    features = torch.randn(2, 6, 4, 3, 2, dtype=torch.float64)
    anchors = calibration.anchors.flatten(0, 1).expand(2, -1, -1)
    voxels = features.flatten(2).transpose(1, 2)
    expected, _ = as_torch_attention(calibration)(voxels, anchors, anchors)
    actual = calibration(features).flatten(2).transpose(1, 2)
    torch.testing.assert_close(actual, expected)


def test_full_width_heads_are_the_published_default():
    calibration = AnchorCalibration(6, 2, 3, 8, "replace")
    assert calibration.query.out_features == 8 * 6
    assert calibration.query.weight.std() < 0.01


def test_residual_adds_what_replace_puts_in_place():
    residual, replace = layer("residual"), layer("replace")
    features = torch.randn(1, 6, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(residual(features), features + replace(features))


def test_a_fresh_residual_layer_changes_nothing_yet():
    calibration = AnchorCalibration(6, 2, 3, 2, "residual")
    calibration.set_anchors(torch.randn(2, 3, 6), torch.ones(2, 3, dtype=torch.bool), in_use=True)
    features = torch.randn(1, 6, 4, 4)
    assert torch.equal(calibration(features), features)


def test_invalid_anchors_weigh_nothing_whatever_they_hold():
    calibration = layer()
    valid = torch.tensor([[True, False, True], [False, True, True]])
    features = torch.randn(1, 6, 4, 4, dtype=torch.float64)
    calibration.set_anchors(calibration.anchors, valid, in_use=True)
    before = calibration(features)
    changed = calibration.anchors.masked_fill(~valid[..., None], 1e3)
    calibration.set_anchors(changed, valid, in_use=True)
    torch.testing.assert_close(calibration(features), before)
    assert not calibration.attention(features)[:, :, ~valid.flatten()].any()


@pytest.mark.parametrize("mode", ["replace", "residual", "off"])
@pytest.mark.parametrize("in_use", [True, False])
def test_without_a_valid_anchor_the_layer_is_the_identity(mode, in_use):
    calibration = AnchorCalibration(6, 2, 3, 2, mode)
    calibration.set_anchors(torch.randn(2, 3, 6), torch.zeros(2, 3, dtype=torch.bool), in_use)
    features = torch.randn(1, 6, 4, 4)
    assert torch.equal(calibration(features), features)


def test_calibration_has_the_right_gradient():
    calibration = layer()
    assert torch.autograd.gradcheck(calibration, [torch.randn(1, 6, 2, 2, dtype=torch.float64, requires_grad=True)])
    features = torch.randn(1, 6, 2, 2, dtype=torch.float64)

    def through_query(weight):
        return torch.func.functional_call(calibration, {"query.weight": weight}, (features,))

    assert torch.autograd.gradcheck(through_query, [calibration.query.weight.detach().requires_grad_()])


def test_dropout_acts_in_training_only():
    calibration = layer(dropout=0.5)
    features = torch.randn(1, 6, 4, 4, dtype=torch.float64)
    assert not torch.equal(calibration.train()(features), calibration(features))
    assert torch.equal(calibration.eval()(features), calibration(features))
