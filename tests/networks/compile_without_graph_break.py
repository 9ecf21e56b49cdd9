"""Compiles the network as one graph, with and without anchors, in training and prediction; fails on a graph break."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.networks.small_network import build_network, give_anchors

network = build_network(deep_supervision=True)
images = torch.randn(1, 4, 8, 8, 8)
graphs = 0
for anchors in (False, True):
    if anchors:
        give_anchors(network)
    for training in (True, False):
        network.train(training)
        torch.compiler.reset()
        compiled = torch.compile(network, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(images).segmentation, network(images).segmentation)
        graphs += 1
print(graphs, "graphs compiled")
