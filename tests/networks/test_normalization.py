"""The faster normalisation is PyTorch's: parameters, results, gradients, errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_fedmepd.networks.normalization import faster


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("kind", "shape"), [(nn.InstanceNorm2d, (3, 5, 4, 6)), (nn.InstanceNorm3d, (2, 5, 4, 6, 3))])
def test_results_and_gradients_are_those_of_instance_normalisation(kind, shape, affine):
    theirs, ours = (cls(5, eps=1e-5, affine=affine).double() for cls in (kind, faster(kind)))
    if affine:
        nn.init.normal_(theirs.weight)
        nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    assert isinstance(ours, kind)
    inputs = [torch.linspace(-3, 5, 2160, dtype=torch.float64)[: torch.Size(shape).numel()].sin().view(shape)] * 2
    inputs = [values.clone().requires_grad_() for values in inputs]
    outputs = [norm(values) for norm, values in zip((theirs, ours), inputs, strict=True)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-10, atol=1e-12)
    for output in outputs:
        (output * torch.arange(output.numel()).view(shape).cos()).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-8, atol=1e-10)
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-8, atol=1e-10)


def test_running_statistics_are_kept_where_asked():
    norm = faster(nn.InstanceNorm3d)(2, track_running_stats=True)
    norm(torch.ones(1, 2, 2, 2, 2))
    assert norm.running_mean.tolist() == pytest.approx([0.1, 0.1])


def test_an_input_of_other_dimensions_is_refused():
    with pytest.raises(ValueError, match="expected 4D or 5D input"):
        faster(nn.InstanceNorm3d)(2)(torch.ones(2, 2, 3))


def test_any_other_normalisation_stays():
    assert faster(nn.BatchNorm3d) is nn.BatchNorm3d
