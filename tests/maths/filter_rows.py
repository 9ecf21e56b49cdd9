"""Filters as rows of a matrix, for tests that look at them one by one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from nnunet_fedmepd.maths.parameters import FilterGroup


def filter_matrix(parameters: Mapping[str, Tensor], group: FilterGroup) -> Float[Tensor, "F D"]:
    """Return the filters of a group as rows: the members' slices, flattened and concatenated in the members' order."""
    parts = [parameters[name].movedim(axis, 0).reshape(group.n_filters, -1) for name, axis in group.members]
    return torch.cat(parts, 1).float()
