"""torch.compile for the networks of many sites in one process."""

from __future__ import annotations

import torch._dynamo.config as dynamo

# Graphs of one method: per site in training and validation, with and without anchors.
_LARGEST_NUMBER_OF_GRAPHS = 1024


def let_every_site_compile() -> None:
    """Raise the number of graphs that torch keeps of one method, 8, which the fourth site of a federation exceeds.

    From there on torch would warn once, and run that site and all later ones without compiling.
    """
    names = ("recompile_limit", "accumulated_recompile_limit")
    if not hasattr(dynamo, names[0]):  # called so before torch 2.6
        names = ("cache_size_limit", "accumulated_cache_size_limit")
    for name in names:
        setattr(dynamo, name, max(getattr(dynamo, name), _LARGEST_NUMBER_OF_GRAPHS))
