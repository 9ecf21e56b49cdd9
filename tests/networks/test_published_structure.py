"""Our network is the published structure, computed in another order: the numbers are the same in float64."""

from __future__ import annotations

import pytest
import torch

from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet
from tests.benchmarks.published_network import PublishedStructure
from tests.networks.small_network import CANONICAL, build_network, give_anchors


def networks(owned: tuple[str, ...]) -> tuple[FedMEPDNet, PublishedStructure]:
    """Return a site's network and the published structure with the same parameters."""
    published = {"calibration": "replace", "calibration_heads": 3, "deep_supervision": True}
    full = build_network(**published).double()
    give_anchors(full)
    own = build_network(owned, **published).double()
    own.load_state_dict({name: full.state_dict()[name] for name in own.state_dict()})
    return own, PublishedStructure(full, owned)


@pytest.mark.parametrize("owned", [("T1ce",), ("T2", "FLAIR"), CANONICAL], ids="+".join)
def test_outputs_and_gradients_are_those_of_the_published_structure(owned):
    ours, published = networks(owned)
    images = torch.randn(2, 4, 8, 8, 8, dtype=torch.float64)
    channels = [CANONICAL.index(m) for m in owned]
    blanked = torch.zeros_like(images)
    blanked[:, channels] = images[:, channels]
    found, expected = ours(images[:, channels]), published(blanked)
    exact = {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(found.segmentation, expected.segmentation, **exact)
    for i, channel in enumerate(channels):
        torch.testing.assert_close(found.auxiliary[:, i], expected.auxiliary[channel], **exact)
    for own, upsampled in zip(found.region_maps, expected.region_maps, strict=True):
        resized = torch.nn.functional.interpolate(own, (8, 8, 8), mode="trilinear")
        torch.testing.assert_close(resized, upsampled, **exact)
    (found.segmentation.square().sum() + found.auxiliary.square().sum()).backward()
    (expected.segmentation.square().sum() + sum(expected.auxiliary[c].square().sum() for c in channels)).backward()
    theirs = dict(published.network.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-8, atol=1e-9)
