"""Means over sites: encoders by modality, the fusion decoder by filter (Liu et al. 2025, section 3.4).

Sums are streamed: one total is held however many sites there are. A total is the same, to the last bit, in whatever
order the sites arrive and however they were bracketed, because it is a sum of integers: every term is rounded once, by
itself, to a multiple of 2**-72 and kept as two 64-bit integers, which add exactly. A float32 parameter of magnitude
2**-48 or more is such a multiple, so nothing is lost of it; for weighted terms the rounding is at most 2**-73. Integers
are also what secure aggregation by additive masks needs.

Legend: F filters of a group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

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

# A term is coarse * 2**-24 + fine * 2**-72. With |term| <= 2**23, |coarse| <= 2**47 and |fine| <= 2**47, so that
# 2**15 terms fit into 64-bit integers with a bit to spare.
COARSE_UNIT = 2.0**-24
FINE_UNIT = 2.0**-72
MAX_MAGNITUDE = 2.0**23
MAX_TERMS = 2**15


@dataclass(frozen=True)
class ExactSum:
    """A sum of real numbers, coarse * 2**-24 + fine * 2**-72, that forgets in which order it was made."""

    coarse: Int[Tensor, "*shape"]
    fine: Int[Tensor, "*shape"]

    def __add__(self, other: ExactSum) -> ExactSum:
        if self.coarse.shape != other.coarse.shape:
            raise ParameterError(
                f"Tensors of shapes {tuple(self.coarse.shape)} and {tuple(other.coarse.shape)} were to be summed; "
                "expected equal shapes. Do all sites use the same plan?"
            )
        return ExactSum(self.coarse + other.coarse, self.fine + other.fine)

    def value(self) -> Float[Tensor, "*shape"]:
        """Return the sum as float64."""
        return self.coarse.double() * COARSE_UNIT + self.fine.double() * FINE_UNIT


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
        n_terms = self.n_terms + other.n_terms
        if n_terms > MAX_TERMS:
            raise ParameterError(f"{n_terms} contributions were to be summed; at most {MAX_TERMS} can be, exactly.")
        return WeightedSum(_add(self.values, other.values), _add(self.weights, other.weights), n_terms)


def exact(values: Float[Tensor, "*shape"], name: str) -> ExactSum:
    """Return `values` as a sum of one term; `name` is used in the error.

    Raises:
        ParameterError: a value is not finite or larger than 2**23.
    """
    if not bool((values.abs() <= MAX_MAGNITUDE).all()):
        raise ParameterError(
            f"{name!r} holds a value that is not finite or larger than {MAX_MAGNITUDE:.0f}; has the training diverged?"
        )
    scaled = values.double() / COARSE_UNIT
    coarse = scaled.round()
    fine = (scaled - coarse) * (COARSE_UNIT / FINE_UNIT)
    return ExactSum(coarse.long(), fine.round().long())


def weigh_encoders(encoders: Mapping[str, Mapping[str, Tensor]], weight: float | int = 1) -> WeightedSum:
    """Return a site's contribution to the encoders of its modalities.

    Args:
        encoders: modality -> parameters, for the modalities that the site owns.
        weight: 1 for the plain mean over sites (Liu et al. 2025), or the number of the site's training cases.

    Raises:
        ParameterError: the weight is not positive, or a value is not finite.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise ParameterError(f"The weight of a site is {weight}; expected a positive number, such as its cases.")
    values = {
        name: exact(tensor.double() * weight, name) for encoder in encoders.values() for name, tensor in encoder.items()
    }
    weights = {modality: exact(torch.tensor(weight, dtype=torch.float64), modality) for modality in encoders}
    return WeightedSum(values, weights, 1)


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
    values = {
        name: exact(decoder[name].double() * along_axis(weights[group.name], axis, decoder[name].ndim), name)
        for group in groups
        for name, axis in group.members
    }
    return WeightedSum(values, {name: exact(weight, name) for name, weight in weights.items()}, 1)


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


def importance_totals(total: WeightedSum, groups: Sequence[FilterGroup]) -> dict[str, Tensor]:
    """Return group name -> (F,) float64 sum_i h_ij, 0 where no site shares; sites need it for leave-one-out."""
    return {
        group.name: total.weights[group.name].value()
        if group.name in total.weights
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
