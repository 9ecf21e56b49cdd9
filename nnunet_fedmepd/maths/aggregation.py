"""Means over sites: encoders by modality, the fusion decoder by filter (Liu et al. 2025, section 3.4).

Sums are streamed: one total is held however many sites there are, and every update is added to it as it arrives. The
total is the same, to the last bit, in whatever order they do (see `exact_sums`).

Legend: F filters of a group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nnunet_fedmepd.maths.exact_sums import MAX_TERMS, ExactSum, RunningTotal, check_terms, unequal_shapes
from nnunet_fedmepd.maths.parameters import (
    FilterGroup,
    FilterSubset,
    ParameterError,
    along_axis,
    check_groups,
    check_masks,
    dense,
)

# Share of a filter that the lead keeps of its own (Liu et al. 2025).
LEAD_SHARE = 0.3


@dataclass(frozen=True)
class WeightedSum:
    """The contribution of one site, or of any number of them: they add with `+`, starting from `WeightedSum()`.

    Attributes:
        values: parameter name -> sum of weight * value.
        weights: modality or filter group -> sum of weights; () for an encoder, (F,) for a filter group.
        n_terms: contributions added so far.
    """

    values: Mapping[str, ExactSum] = field(default_factory=dict)
    weights: Mapping[str, ExactSum] = field(default_factory=dict)
    n_terms: int = 0

    def __add__(self, other: WeightedSum) -> WeightedSum:
        n_terms = _checked_number(self.n_terms + other.n_terms)
        return WeightedSum(_add(self.values, other.values), _add(self.weights, other.weights), n_terms)


@dataclass(frozen=True)
class Contribution:
    """What one site adds to a sum, checked and not yet multiplied.

    Attributes:
        values: parameter name -> (value, weight that broadcasts).
        weights: modality or filter group -> weights; () for an encoder, (F,) for a filter group.
    """

    values: Mapping[str, tuple[Tensor, Tensor | float]]
    weights: Mapping[str, Tensor]


class RunningSum:
    """A `WeightedSum` that grows in place, update by update."""

    def __init__(self) -> None:
        self._values: dict[str, RunningTotal] = {}
        self._weights: dict[str, RunningTotal] = {}
        self.n_terms = 0

    def add(self, contribution: Contribution) -> None:
        """Add what a site contributes; without success, nothing of it.

        Raises:
            ParameterError: shapes that differ from those of other sites, or too many contributions.
        """
        n_terms = _checked_number(self.n_terms + 1)
        for name, (value, _) in contribution.values.items():
            if name in self._values and self._values[name].shape != value.shape:
                raise unequal_shapes(self._values[name].shape, value.shape)
        for name, (value, weight) in contribution.values.items():
            _total_of(self._values, name, value).add(value, weight)
        for name, weights in contribution.weights.items():
            _total_of(self._weights, name, weights).add(weights)
        self.n_terms = n_terms

    def total(self) -> WeightedSum:
        """Return the sum so far; it shares its memory with this one."""
        values = {name: total.total() for name, total in self._values.items()}
        return WeightedSum(values, {name: total.total() for name, total in self._weights.items()}, self.n_terms)


def weigh_encoders(encoders: Mapping[str, Mapping[str, Tensor]], weight: float | int = 1) -> WeightedSum:
    """Return the sum of one site's `encoder_contribution`."""
    return _sum_of(encoder_contribution(encoders, weight))


def encoder_contribution(encoders: Mapping[str, Mapping[str, Tensor]], weight: float | int = 1) -> Contribution:
    """Return a site's contribution to the encoders of its modalities.

    Args:
        encoders: modality -> parameters, for the modalities that the site owns.
        weight: 1 for the plain mean over sites (Liu et al. 2025), or the number of the site's training cases.

    Raises:
        ParameterError: the weight is not positive, or a value is not finite.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise ParameterError(f"The weight of a site is {weight}; expected a positive number, such as its cases.")
    weights = {modality: torch.tensor(weight, dtype=torch.float64) for modality in encoders}
    parameters = {name: tensor for encoder in encoders.values() for name, tensor in encoder.items()}
    return _checked({name: (tensor, float(weight)) for name, tensor in parameters.items()}, weights)


def encoder_means(total: WeightedSum, own: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Return each modality's encoder averaged over the sites that own the modality.

    Args:
        total: the sum of the sites' `weigh_encoders`.
        own: modality -> the coordinator's encoder; it stays where no site contributed.

    Raises:
        ParameterError: the sites' encoders do not have the coordinator's names and shapes.
    """
    return {
        modality: {
            name: _mean(_term(total, name, tensor), total.weights[modality].value()).to(tensor.dtype)
            if modality in total.weights
            else tensor.clone()
            for name, tensor in encoder.items()
        }
        for modality, encoder in own.items()
    }


def weigh_filters(shared: FilterSubset, importance: Mapping[str, Tensor], groups: Sequence[FilterGroup]) -> WeightedSum:
    """Return the sum of one site's `filter_contribution`."""
    return _sum_of(filter_contribution(shared, importance, groups))


def filter_contribution(
    shared: FilterSubset, importance: Mapping[str, Tensor], groups: Sequence[FilterGroup]
) -> Contribution:
    """Return a site's contribution h_ij W_ij, h_ij to the fusion decoder, zero where its filters are personal.

    Args:
        shared: the site's shared filters W_ij.
        importance: group name -> (F,) h_ij >= 0; read only where the filter is shared.
        groups: the decoder's filters.

    Raises:
        ParameterError: groups, filters and importance do not fit together, or a value is negative or not finite.
    """
    weights = _importance_of_shared(shared, importance, groups)
    decoder = dense(shared, groups)
    values: dict[str, tuple[Tensor, Tensor | float]] = {
        name: (decoder[name], along_axis(weights[group.name], axis, decoder[name].ndim))
        for group in groups
        for name, axis in group.members
    }
    return _checked(values, weights)


def decoder_mean(
    total: WeightedSum, own: Mapping[str, Tensor], groups: Sequence[FilterGroup], lead_share: float = LEAD_SHARE
) -> dict[str, Tensor]:
    """Return the lead's decoder after aggregation.

    Filter j becomes lam * own_j + (1 - lam) * sum_i h_ij W_ij / sum_i h_ij, and stays own_j if no site shares it.

    Args:
        total: the sum of the sites' `weigh_filters`.
        own: the lead's decoder.
        groups: its filters.
        lead_share: lam in [0, 1].

    Raises:
        ParameterError: groups, decoder and sums do not fit together.
    """
    check_groups(own, groups)
    result = {}
    for group in groups:
        for name, axis in group.members:
            result[name] = own[name].clone()
            if group.name in total.weights:
                weight = along_axis(total.weights[group.name].value(), axis, own[name].ndim)
                result[name] = _mix(own[name], _term(total, name, own[name]), weight, lead_share)
    return result


def share_denominators(
    total: WeightedSum, groups: Sequence[FilterGroup], lead_share: float = LEAD_SHARE
) -> dict[str, Tensor]:
    """Return group name -> (F,) float64 sum_i h_ij / (1 - lam), 0 where no site moves the lead's filter.

    A site's h_ij over it is the share of the site's update in the aggregate, which leave-one-out needs.
    """
    return {
        group.name: total.weights[group.name].value() / (1 - lead_share)
        if group.name in total.weights and lead_share < 1
        else torch.zeros(group.n_filters, dtype=torch.float64)
        for group in groups
    }


def _mix(own: Tensor, weighted: Tensor, weight: Tensor, lead_share: float) -> Tensor:
    mean = torch.where(weight > 0, _mean(weighted, weight), own.double())
    # Written as a step from own to mean: exact where the two are equal.
    return (own.double() + (1 - lead_share) * (mean - own.double())).to(own.dtype)


def _mean(weighted: Tensor, weight: Tensor) -> Tensor:
    return weighted / torch.where(weight > 0, weight, 1.0)


def _importance_of_shared(
    shared: FilterSubset, importance: Mapping[str, Tensor], groups: Sequence[FilterGroup]
) -> dict[str, Tensor]:
    check_masks(shared.masks, groups)
    weights = {}
    for group in groups:
        h = importance[group.name] if group.name in importance else torch.empty(0)
        if h.shape != (group.n_filters,) or not bool((h >= 0).all()):
            raise ParameterError(
                f"The importance of filter group {group.name!r} has shape {tuple(h.shape)}, lowest value "
                f"{min(h.tolist(), default=None)}; expected {group.n_filters} values, none negative."
            )
        weights[group.name] = torch.where(shared.masks[group.name], h.double(), 0.0)
    return weights


def _term(total: WeightedSum, name: str, expected: Tensor) -> Tensor:
    found = total.values[name].value() if name in total.values else None
    if found is None or found.shape != expected.shape:
        raise ParameterError(
            f"The sites' {name!r} is {'absent' if found is None else f'of shape {tuple(found.shape)}'}; expected shape "
            f"{tuple(expected.shape)}. Do all sites use the same plan?"
        )
    return found


def _add(a: Mapping[str, ExactSum], b: Mapping[str, ExactSum]) -> dict[str, ExactSum]:
    return {**a, **{name: a[name] + term if name in a else term for name, term in b.items()}}


def _total_of(totals: dict[str, RunningTotal], name: str, term: Tensor) -> RunningTotal:
    if name not in totals:
        totals[name] = RunningTotal(term.shape)
    return totals[name]


def _sum_of(contribution: Contribution) -> WeightedSum:
    running = RunningSum()
    running.add(contribution)
    return running.total()


def _checked(values: Mapping[str, tuple[Tensor, Tensor | float]], weights: Mapping[str, Tensor]) -> Contribution:
    for name, (value, weight) in values.items():
        check_terms(value, weight, name)
    for name, weight in weights.items():
        check_terms(weight, 1.0, name)
    return Contribution(values, weights)


def _checked_number(n_terms: int) -> int:
    if n_terms > MAX_TERMS:
        raise ParameterError(f"{n_terms} contributions were to be summed; at most {MAX_TERMS} can be, exactly.")
    return n_terms
