"""1x1 convolutions as matrix products: PyTorch's results and gradients, and its class wherever one asks for it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_fedmepd.networks.pointwise import conv_class


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "space"), [(nn.Conv2d, (5, 3)), (nn.Conv3d, (4, 2, 3))])
def test_results_and_gradients_are_those_of_the_convolution(kind, space, bias):
    torch.manual_seed(0)
    ours = conv_class(kind, [1] * len(space), [1] * len(space))(6, 4, 1, bias=bias).double()
    theirs = kind(6, 4, 1, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    assert isinstance(ours, kind)
    inputs = [torch.linspace(-1, 1, 12 * torch.Size(space).numel()).double().view(2, 6, *space) for _ in range(2)]
    for values, conv in zip(inputs, (ours, theirs), strict=True):
        conv(values.requires_grad_()).sin().sum().backward()
    torch.testing.assert_close(ours(inputs[0]), theirs(inputs[0]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-12, atol=1e-12)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride"), [([3, 1, 1], [1, 1, 1]), ([1, 1, 1], [2, 2, 2])])
def test_any_other_convolution_stays(kernel, stride):
    assert conv_class(nn.Conv3d, kernel, stride) is nn.Conv3d
