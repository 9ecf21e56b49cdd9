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


@pytest.mark.parametrize("mode", ["residual", "standardized"])
def test_a_fresh_residual_layer_changes_nothing_yet(mode):
    calibration = AnchorCalibration(6, 2, 3, 2, mode)
    calibration.set_anchors(torch.randn(2, 3, 6), torch.ones(2, 3, dtype=torch.bool), in_use=True)
    features = torch.randn(1, 6, 4, 4)
    assert torch.equal(calibration(features), features)


def test_standardized_attention_is_to_anchors_like_the_voxel_from_the_start():
    torch.manual_seed(0)
    # Anchors that differ by a thousandth of what they have in common, and voxels that lie on them.
    anchors, valid = 10 + 0.01 * torch.randn(2, 3, 16), torch.tensor([[True, True, True], [True, True, False]])
    features = anchors[valid].T[None, :, :, None, None]
    attended = {}
    for mode in ("residual", "standardized"):
        calibration = AnchorCalibration(16, 2, 3, 2, mode)
        calibration.set_anchors(anchors.masked_fill(~valid[..., None], 1e3), valid, in_use=True)
        weights = calibration.attention(features)[0, :, valid.flatten(), :, 0, 0]
        attended[mode] = torch.diagonal(weights, dim1=1, dim2=2)
    assert (attended["residual"] < 0.25).all()
    assert (attended["standardized"] > 0.5).all()


def test_standardized_attention_does_not_depend_on_origin_and_units_of_features():
    torch.manual_seed(0)
    anchors, features = torch.randn(2, 3, 6, dtype=torch.float64), torch.randn(1, 6, 4, 4, dtype=torch.float64)
    scale, shift = 1 + torch.rand(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    calibration = AnchorCalibration(6, 2, 3, 2, "standardized").double()
    calibration.set_anchors(anchors, torch.ones(2, 3, dtype=torch.bool), in_use=True)
    before = calibration.attention(features)
    calibration.set_anchors(anchors * scale + shift, calibration.valid, in_use=True)
    moved = features * scale[:, None, None] + shift[:, None, None]
    torch.testing.assert_close(calibration.attention(moved), before)


@pytest.mark.parametrize("mode", ["residual", "standardized"])
def test_invalid_anchors_weigh_nothing_whatever_they_hold(mode):
    calibration = layer(mode)
    valid = torch.tensor([[True, False, True], [False, True, True]])
    features = torch.randn(1, 6, 4, 4, dtype=torch.float64)
    calibration.set_anchors(calibration.anchors, valid, in_use=True)
    before = calibration(features)
    changed = calibration.anchors.masked_fill(~valid[..., None], 1e3)
    calibration.set_anchors(changed, valid, in_use=True)
    torch.testing.assert_close(calibration(features), before)
    assert not calibration.attention(features)[:, :, ~valid.flatten()].any()


@pytest.mark.parametrize("mode", ["replace", "residual", "standardized", "off"])
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
