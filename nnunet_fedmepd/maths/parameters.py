"""Filters inside parameters: which slices form one, how they are taken out and put back.

Parameters are dictionaries name -> tensor. Functions return new dictionaries and leave their arguments as they are.
Filters are addressed by parameter name and axis, never by position in a network.

Legend: F filters of a group, D values per filter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from nnunet_fedmepd.errors import FedMEPDError


class ParameterError(FedMEPDError):
    """Parameters, masks or filter groups that should fit together do not."""


@dataclass(frozen=True)
class FilterGroup:
    """The filters of one convolution: filter j is slice j of every member along the member's axis.

    Attributes:
        name: unique name of the group.
        members: (parameter name, axis along which the filters lie): 0 for a convolution's weight (F, C, ...), for
            biases and for normalisation; 1 for the weight (C, F, ...) of a transposed convolution.
        n_filters: F.
    """

    name: str
    members: tuple[tuple[str, int], ...]
    n_filters: int


@dataclass(frozen=True)
class FilterSubset:
    """Some filters of a decoder in the form that travels: nothing of the other filters is in it.

    Attributes:
        values: parameter name -> the chosen slices, in ascending order, along the parameter's filter axis; of length 0
            along that axis where no filter of the group was chosen.
        masks: group name -> (F,) bool, which filters were chosen.
    """

    values: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]


def along_axis(values: Shaped[Tensor, " F"], axis: int, ndim: int) -> Tensor:
    """Return one value a filter, shaped to multiply a parameter of `ndim` axes whose filters lie along `axis`."""
    return values.view(*(-1 if i == axis else 1 for i in range(ndim)))


def uniform_masks(groups: Sequence[FilterGroup], chosen: bool) -> dict[str, Tensor]:
    """Return masks that choose every filter, or none."""
    return {group.name: torch.full((group.n_filters,), chosen) for group in groups}


def select(
    parameters: Mapping[str, Tensor], groups: Sequence[FilterGroup], masks: Mapping[str, Tensor]
) -> FilterSubset:
    """Return the filters chosen by `masks`.

    Raises:
        ParameterError: groups and parameters do not cover each other, or a mask does not fit its group.
    """
    check_groups(parameters, groups)
    check_masks(masks, groups)
    values = {
        name: parameters[name].index_select(axis, _indices(masks[group.name]))
        for group in groups
        for name, axis in group.members
    }
    return FilterSubset(values, {group.name: masks[group.name].clone() for group in groups})


def partition(
    decoder: Mapping[str, Tensor], groups: Sequence[FilterGroup], shared_masks: Mapping[str, Tensor]
) -> tuple[FilterSubset, FilterSubset]:
    """Return the shared and the personal filters; `combine` is the exact inverse.

    Args:
        decoder: the fusion decoder's parameters, every one of them in exactly one group.
        groups: its filters.
        shared_masks: group name -> (F,) bool.

    Raises:
        ParameterError: groups and parameters do not cover each other, or a mask does not fit its group.
    """
    check_masks(shared_masks, groups)
    personal_masks = {name: ~mask for name, mask in shared_masks.items()}
    return select(decoder, groups, shared_masks), select(decoder, groups, personal_masks)


def combine(shared: FilterSubset, personal: FilterSubset, groups: Sequence[FilterGroup]) -> dict[str, Tensor]:
    """Return the whole decoder from its two parts.

    Raises:
        ParameterError: a filter is in both parts or in none, or values do not fit their masks.
    """
    for group in groups:
        if not torch.equal(personal.masks[group.name], ~shared.masks[group.name]):
            raise ParameterError(
                f"The two parts of filter group {group.name!r} do not complete each other: expected every one of its "
                f"{group.n_filters} filters in exactly one of them. Combine parts of the same partition."
            )
    return overlay(dense(personal, groups), shared, groups)


def overlay(parameters: Mapping[str, Tensor], subset: FilterSubset, groups: Sequence[FilterGroup]) -> dict[str, Tensor]:
    """Return `parameters` with the filters of `subset` in the place of their own.

    Raises:
        ParameterError: groups, parameters and subset do not fit together.
    """
    check_groups(parameters, groups)
    check_subset(subset, groups)
    return {
        name: parameters[name].index_copy(axis, _indices(subset.masks[group.name]), subset.values[name])
        for group in groups
        for name, axis in group.members
    }


def dense(subset: FilterSubset, groups: Sequence[FilterGroup]) -> dict[str, Tensor]:
    """Return parameters of full shape with the filters of `subset` in their places and zeros elsewhere.

    Raises:
        ParameterError: values do not fit their masks or the groups.
    """
    check_subset(subset, groups)
    result = {}
    for group in groups:
        indices = _indices(subset.masks[group.name])
        for name, axis in group.members:
            values = subset.values[name]
            if len(indices) == group.n_filters:
                result[name] = values.clone()
                continue
            shape = [group.n_filters if i == axis else length for i, length in enumerate(values.shape)]
            result[name] = values.new_zeros(shape).index_copy_(axis, indices, values)
    return result


def delta(after: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return after - before, parameter by parameter.

    Raises:
        ParameterError: the two do not have the same names, shapes and number types.
    """
    check_alike(after, before, "the parameters after training")
    return {name: after[name] - before[name] for name in before}


def check_alike(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Check that `found` has the names, shapes and number types of `expected`; `source` says where it is from.

    Raises:
        ParameterError: naming the first parameter that differs.
    """
    if missing := sorted(expected.keys() - found.keys()):
        raise ParameterError(
            f"{source} lack {len(missing)} of {len(expected)} parameters, the first is {missing[0]!r}."
        )
    if unknown := sorted(found.keys() - expected.keys()):
        raise ParameterError(f"{source} have {len(unknown)} unknown parameters, the first is {unknown[0]!r}.")
    for name, tensor in expected.items():
        if (found[name].shape, found[name].dtype) != (tensor.shape, tensor.dtype):
            raise ParameterError(
                f"{source} have a {name!r} of shape {tuple(found[name].shape)} and type {found[name].dtype}; "
                f"expected {tuple(tensor.shape)} and {tensor.dtype}. Do all sites use the same plan?"
            )


def check_groups(parameters: Mapping[str, Tensor], groups: Sequence[FilterGroup]) -> None:
    """Check that every parameter lies in exactly one group and has as many filters as the group.

    Raises:
        ParameterError: naming the first group or parameter at fault.
    """
    names = [name for group in groups for name, _ in group.members]
    if len(set(names)) < len(names):
        doubled = next(name for i, name in enumerate(names) if name in names[:i])
        raise ParameterError(f"Parameter {doubled!r} is in two filter groups; expected every parameter in one.")
    if difference := sorted(parameters.keys() ^ set(names)):
        place = "no filter group" if difference[0] in parameters else "a filter group, but not in the decoder"
        raise ParameterError(f"Parameter {difference[0]!r} is in {place}; expected every parameter in one group.")
    for group in groups:
        for name, axis in group.members:
            shape = tuple(parameters[name].shape)
            if axis >= len(shape) or shape[axis] != group.n_filters:
                raise ParameterError(
                    f"Parameter {name!r} of shape {shape} should have the {group.n_filters} filters of group "
                    f"{group.name!r} along axis {axis}."
                )


def check_masks(masks: Mapping[str, Tensor], groups: Sequence[FilterGroup]) -> None:
    """Check that there is one bool mask of shape (F,) for each group.

    Raises:
        ParameterError: naming the first group at fault.
    """
    if difference := sorted(masks.keys() ^ {group.name for group in groups}):
        found = "a mask, but no such group" if difference[0] in masks else "no mask"
        raise ParameterError(f"Filter group {difference[0]!r} has {found}; expected one mask for each group.")
    for group in groups:
        mask = masks[group.name]
        if mask.dtype != torch.bool or mask.shape != (group.n_filters,):
            raise ParameterError(
                f"The mask of filter group {group.name!r} has shape {tuple(mask.shape)} and type {mask.dtype}; "
                f"expected ({group.n_filters},) and torch.bool."
            )


def check_subset(subset: FilterSubset, groups: Sequence[FilterGroup]) -> None:
    """Check that a subset holds, for every parameter of the groups, as many slices as its mask chooses.

    Raises:
        ParameterError: naming the first group or parameter at fault.
    """
    check_masks(subset.masks, groups)
    chosen = [FilterGroup(group.name, group.members, int(subset.masks[group.name].sum().item())) for group in groups]
    check_groups(subset.values, chosen)


def _indices(mask: Tensor) -> Tensor:
    return mask.nonzero()[:, 0]
