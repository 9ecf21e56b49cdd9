"""Compiles the networks of three sites in one process, as a federation in turns does; prints how many graphs there are.

Torch is set to keep two graphs of a method, so that three sites are too many already.
"""

import sys
from pathlib import Path

import torch
import torch._dynamo.config as dynamo
from torch._dynamo.utils import counters

sys.path.insert(0, str(Path(__file__).parents[2]))
from nnunet_fedmepd.nnunet_plugin.compilation import let_every_site_compile
from tests.networks.small_network import build_network

setattr(dynamo, "recompile_limit" if hasattr(dynamo, "recompile_limit") else "cache_size_limit", 2)
let_every_site_compile()
for modality in ("T1ce", "T2", "FLAIR"):
    torch.compile(build_network([modality], dim=2), backend="eager")(torch.randn(1, 1, 8, 8))
print(counters["stats"]["unique_graphs"])
