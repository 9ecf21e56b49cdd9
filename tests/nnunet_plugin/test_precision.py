"""A step in bfloat16 on a CPU: outputs reach loss and anchors in float32, and gradients point where they did."""

from __future__ import annotations

import torch

from nnunet_fedmepd.nnunet_plugin.host_memory import keep_freed_memory
from nnunet_fedmepd.nnunet_plugin.precision import autocast_for, ready_for_loss
from tests.networks.small_network import build_network, give_anchors

CPU = torch.device("cpu")


def step(cpu_bf16: bool):
    """Return output and gradients of one backward pass."""
    network = build_network(deep_supervision=True)
    give_anchors(network)
    images = torch.randn(2, 4, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with autocast_for(CPU, cpu_bf16):
        output = ready_for_loss(network(images))
        loss = output.segmentation.log_softmax(1)[:, 1].mean() + output.auxiliary.log_softmax(2)[:, :, 0].mean()
    loss.backward()
    return output, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def test_in_bfloat16_outputs_are_rounded_a_little_and_come_as_float32():
    (exact, _), (rounded, _) = step(False), step(True)
    for a, b in zip(
        [exact.segmentation, exact.auxiliary, *exact.region_maps, *exact.fused],
        [rounded.segmentation, rounded.auxiliary, *rounded.region_maps, *rounded.fused],
        strict=True,
    ):
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)
        assert (a - b).norm() < 0.05 * a.norm()


def test_in_bfloat16_gradients_are_float32_and_point_where_they_did():
    (_, exact), (_, rounded) = step(False), step(True)
    flat = [torch.cat([gradients[name].flatten() for name in exact]) for gradients in (exact, rounded)]
    assert flat[1].dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(*flat, dim=0) > 0.99


def test_kept_memory_changes_no_result():
    _, before = step(False)
    keep_freed_memory()
    _, after = step(False)
    assert all(torch.equal(before[name], after[name]) for name in before)
