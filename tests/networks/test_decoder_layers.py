"""Layers name every filter of the decoder once, in the order in which the decoder runs."""

from nnunet_fedmepd.networks.decoder_layers import decoder_layers
from tests.networks.small_network import build_network


def test_every_filter_lies_in_one_layer():
    groups = build_network().decoder_filters()
    layers = decoder_layers(groups)
    assert sorted(name for layer in layers for name in layer.groups) == sorted(group.name for group in groups)
    assert sum(layer.n_filters for layer in layers) == sum(group.n_filters for group in groups)


def test_layers_run_from_the_coarsest_scale_to_the_output():
    layers = decoder_layers(build_network().decoder_filters())
    assert [(layer.scale, layer.part) for layer in layers] == [
        *[(2, "region map"), (2, "fusion"), (2, "merge")],
        *[(1, "upsampling"), (1, "region map"), (1, "fusion"), (1, "merge")],
        *[(0, "upsampling"), (0, "region map"), (0, "fusion"), (0, "merge"), (0, "output")],
    ]
    assert "decoder.fusions.1.gates.hidden" in layers[5].groups
