"""Sums of real numbers that are the same, to the last bit, in whatever order and brackets they were made.

Every term is rounded once, by itself, to a multiple of 2**-72 and kept as two 64-bit integers, which add exactly. A
float32 of magnitude 2**-48 or more is such a multiple, so nothing is lost of it; for weighted terms the rounding is at
most 2**-73. Integers are also what secure aggregation by additive masks needs.

A float64 near 1.5 * 2**52 * unit has steps of `unit`: adding that number to a term rounds it to a multiple of the unit,
and the bits of the sum, read as an integer, are that multiple plus a constant. Neither rounding nor conversion costs
a pass of its own, and blocks that stay in the processor's cache make all passes cheap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from nnunet_fedmepd.maths.parameters import ParameterError

# A term is coarse * 2**-24 + fine * 2**-72. With |term| <= 2**23, |coarse| <= 2**47 and |fine| <= 2**47, so that
# 2**15 terms fit into 64-bit integers with a bit to spare.
COARSE_UNIT = 2.0**-24
FINE_UNIT = 2.0**-72
MAX_MAGNITUDE = 2.0**23
MAX_TERMS = 2**15

_BLOCK = 32768  # values; two float64 and two int64 of each take 1 MiB
_COARSE_ROUNDER = 1.5 * 2**52 * COARSE_UNIT
_FINE_ROUNDER = 1.5 * 2**52 * FINE_UNIT


@dataclass(frozen=True)
class ExactSum:
    """A sum of real numbers, coarse * 2**-24 + fine * 2**-72, that forgets in which order it was made."""

    coarse: Int[Tensor, "*shape"]
    fine: Int[Tensor, "*shape"]

    def __add__(self, other: ExactSum) -> ExactSum:
        if self.coarse.shape != other.coarse.shape:
            raise unequal_shapes(self.coarse.shape, other.coarse.shape)
        return ExactSum(self.coarse + other.coarse, self.fine + other.fine)

    def value(self) -> Float[Tensor, "*shape"]:
        """Return the sum as float64."""
        return self.coarse.double() * COARSE_UNIT + self.fine.double() * FINE_UNIT


class RunningTotal:
    """An exact sum that grows in place.

    Args:
        shape: of the terms.
    """

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape
        self._coarse, self._fine = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._n_constants = 0

    def add(self, values: Float[Tensor, "*shape"], weights: Tensor | float = 1.0) -> None:
        """Add weights * values, with weights that broadcast; the terms must be within the bounds of `check_terms`."""
        own = values.detach().cpu()
        terms = (own if own.dtype == torch.float64 else own.float()).contiguous().numpy()
        factors = None
        if isinstance(weights, Tensor) or weights != 1:
            factors = torch.as_tensor(weights, dtype=torch.float64).expand(values.shape).numpy()
        _add_in_blocks(self._coarse, self._fine, terms, factors)
        self._n_constants += 1

    def total(self) -> ExactSum:
        """Return the sum so far; it shares its memory with this one."""
        for integers, rounder in ((self._coarse, _COARSE_ROUNDER), (self._fine, _FINE_ROUNDER)):
            constant = int(np.float64(rounder).view(np.int64)) * self._n_constants
            constant = (constant + 2**63) % 2**64 - 2**63  # as 64-bit integers overflow
            np.subtract(integers, np.int64(constant), out=integers)
        self._n_constants = 0
        return ExactSum(torch.from_numpy(self._coarse), torch.from_numpy(self._fine))


def exact(values: Float[Tensor, "*shape"], name: str) -> ExactSum:
    """Return `values` as a sum of one term; `name` is used in the error.

    Raises:
        ParameterError: a value is not finite or larger than 2**23.
    """
    check_terms(values, 1.0, name)
    total = RunningTotal(values.shape)
    total.add(values)
    return total.total()


def check_terms(values: Tensor, weights: Tensor | float, name: str) -> None:
    """Check that all weights * values are within the bounds of an exact sum; `name` is used in the error.

    Raises:
        ParameterError: a term is not finite or larger than 2**23.
    """
    largest = largest_magnitude(values) * largest_magnitude(torch.as_tensor(weights))
    # The bound of the product may be exceeded although no product exceeds it: only then all are looked at.
    if not largest <= MAX_MAGNITUDE and not bool(((values.double() * weights).abs() <= MAX_MAGNITUDE).all()):
        raise ParameterError(
            f"{name!r} holds a value that is not finite or larger than {MAX_MAGNITUDE:.0f}; has the training diverged?"
        )


def largest_magnitude(values: Tensor) -> float:
    """Return max |value|: 0 without values, NaN if one of them is."""
    return float(torch.stack(torch.aminmax(values)).abs().max()) if values.numel() else 0.0


def unequal_shapes(a: torch.Size, b: torch.Size) -> ParameterError:
    """Return the error of two tensors that cannot be added."""
    return ParameterError(
        f"Tensors of shapes {tuple(a)} and {tuple(b)} were to be summed; expected equal shapes. Do all sites use the "
        "same plan?"
    )


def _add_in_blocks(coarse: NDArray, fine: NDArray, terms: NDArray, factors: NDArray | None) -> None:
    """Add terms, or factors * terms, to the two integers; all of one shape."""
    coarse, fine, terms = np.atleast_1d(coarse, fine, terms)
    row = max(1, terms[:1].size)
    n_rows = max(1, _BLOCK // row)
    scratch = np.empty((2, n_rows, *terms.shape[1:]))
    for start in range(0, len(terms), n_rows):
        block = slice(start, start + n_rows)
        own = scratch[:, : len(terms[block])]
        np.copyto(own[0], terms[block])
        if factors is not None:
            own[0] *= np.atleast_1d(factors)[block]
        _add_block(coarse[block], fine[block], own[0], own[1])


def _add_block(coarse: NDArray, fine: NDArray, terms: NDArray, rounded: NDArray) -> None:
    """Add terms, which are used up, as is the scratch memory `rounded`."""
    np.add(terms, _COARSE_ROUNDER, out=rounded)
    coarse += rounded.view(np.int64)
    rounded -= _COARSE_ROUNDER
    terms -= rounded
    terms += _FINE_ROUNDER
    fine += terms.view(np.int64)
