"""Sums of real numbers that are the same, to the last bit, in whatever order and brackets they were made.

Every term is rounded once, by itself, to a multiple of 2**-72, and such multiples are added exactly. A float32 of
magnitude 2**-48 or more is such a multiple, so nothing is lost of it; for weighted terms the rounding is at most
2**-73. What comes out are two 64-bit integers, which is also what secure aggregation by additive masks needs.

Passes over memory are what a sum costs, so every term takes the shortest way that is exact:

- A float32 of magnitude 2**-23 or more is a multiple of 2**-46, and so is an integer times it. Float64 adds such
  numbers exactly while their sum stays below 2**7: one addition, no integers. Parameters of one integer weight, such as
  encoders', go this way; the few smaller values among them are picked out.
- All other terms are split. A float64 near 1.5 * 2**52 * unit has steps of `unit`: adding that number to a term rounds
  it to a multiple of the unit, and the bits of the sum, read as an integer, are that multiple plus a constant. Neither
  rounding nor conversion costs a pass of its own.

Blocks that stay in the processor's cache make the passes within them cheap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from nnunet_fedmepd.maths.parameters import ParameterError

# A sum is coarse * 2**-24 + fine * 2**-72. With |term| <= 2**23, 2**15 terms and what is carried from one to the other
# fit into 64-bit integers with a bit to spare.
COARSE_UNIT = 2.0**-24
FINE_UNIT = 2.0**-72
MAX_MAGNITUDE = 2.0**23
MAX_TERMS = 2**15

_BLOCK = 32768  # values; two float64 and two int64 of each take 1 MiB
_COARSE_ROUNDER = 1.5 * 2**52 * COARSE_UNIT
_FINE_ROUNDER = 1.5 * 2**52 * FINE_UNIT
_FINE_BITS = 48  # FINE_UNIT is COARSE_UNIT / 2**48

# Float64 adds multiples of the short unit exactly as long as no sum exceeds 2**53 of them.
_SHORT_UNIT = 2.0**-46
_SHORT_RANGE = 2.0**53 * _SHORT_UNIT
_SHORT_ROUNDER = 1.5 * 2**52 * _SHORT_UNIT
_SMALLEST_SHORT = 2.0**23 * _SHORT_UNIT  # from here on every float32 is a multiple of the unit


@dataclass(frozen=True)
class ExactSum:
    """A sum of real numbers, coarse * 2**-24 + fine * 2**-72, that forgets in which order it was made.

    `fine` lies from -2**47 to 2**47 - 1, so that equal sums are equal integers.
    """

    coarse: Int[Tensor, "*shape"]
    fine: Int[Tensor, "*shape"]

    def __add__(self, other: ExactSum) -> ExactSum:
        if self.coarse.shape != other.coarse.shape:
            raise unequal_shapes(self.coarse.shape, other.coarse.shape)
        coarse, fine = (self.coarse + other.coarse).numpy(), (self.fine + other.fine).numpy()
        _carry(coarse, fine)
        return ExactSum(torch.from_numpy(coarse), torch.from_numpy(fine))

    def value(self) -> Float[Tensor, "*shape"]:
        """Return the sum as float64."""
        return self.coarse.double() * COARSE_UNIT + self.fine.double() * FINE_UNIT


@dataclass(frozen=True)
class Terms:
    """weights * values, known to be within the bounds of an exact sum: what `checked` returns.

    Attributes:
        values: float32 or float64, contiguous, on the CPU.
        weights: float64 that broadcasts.
        largest: bound of |weight * value|.
        smallest: min |value| of each block of the flattened values.
    """

    values: Float[Tensor, "*shape"]
    weights: Float[Tensor, ...]
    largest: float
    smallest: NDArray

    @cached_property
    def integer_weight(self) -> float | None:
        """The weight that all values have in common; None where there is none or it is not an integer."""
        if not self.weights.numel():
            return None
        lowest, highest = (float(bound) for bound in torch.aminmax(self.weights))
        return lowest if lowest == highest and lowest.is_integer() else None

    @property
    def are_short(self) -> bool:
        """Whether float64 adds them and several sites' like them exactly, those of values too small left out."""
        few_bits = self.values.dtype == torch.float32 and self.integer_weight is not None
        return few_bits and self.largest <= _SHORT_RANGE / 8


class RunningTotal:
    """An exact sum that grows in place: a float64 of short terms plus the two integers of an `ExactSum`.

    Args:
        shape: of the terms.
    """

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape
        self._short: NDArray | None = None
        self._room = 0.0
        self._integers: tuple[NDArray, NDArray] | None = None
        self._n_constants = 0

    def add(self, terms: Terms) -> None:
        """Add terms of the total's shape."""
        if terms.are_short:
            self._make_room(terms.largest)
            _add_short(self._short_sum(), self._coarse_and_fine()[1], terms)
            return
        factors = None if terms.integer_weight == 1 else np.broadcast_to(terms.weights.numpy(), self.shape)
        self._add_split(terms.values.numpy(), factors)

    def total(self) -> ExactSum:
        """Return the sum so far; it shares its memory with this one."""
        self._settle()
        self._short = None
        coarse, fine = self._coarse_and_fine()
        for integers, rounder in ((coarse, _COARSE_ROUNDER), (fine, _FINE_ROUNDER)):
            constant = int(np.float64(rounder).view(np.int64)) * self._n_constants
            constant = (constant + 2**63) % 2**64 - 2**63  # as 64-bit integers overflow
            np.subtract(integers, np.int64(constant), out=integers)
        self._n_constants = 0
        _carry(coarse, fine)
        return ExactSum(torch.from_numpy(coarse), torch.from_numpy(fine))

    def _short_sum(self) -> NDArray:
        if self._short is None:
            self._short = np.zeros(self.shape)
        return self._short

    def _coarse_and_fine(self) -> tuple[NDArray, NDArray]:
        if self._integers is None:  # zeros take no memory until they are written to
            self._integers = (np.zeros(self.shape, np.int64), np.zeros(self.shape, np.int64))
        return self._integers

    def _add_split(self, values: NDArray, factors: NDArray | None) -> None:
        _add_in_blocks(*self._coarse_and_fine(), values, factors)
        self._n_constants += 1

    def _make_room(self, largest: float) -> None:
        if largest > self._room:
            self._settle()
            self._room = _SHORT_RANGE
        self._room -= largest

    def _settle(self) -> None:
        """Move the sum of short terms to the integers."""
        if self._short is not None:
            self._add_split(self._short, None)
            self._short.fill(0)
        self._room = 0.0


def exact(values: Float[Tensor, "*shape"], name: str) -> ExactSum:
    """Return `values` as a sum of one term; `name` is used in the error.

    Raises:
        ParameterError: a value is not finite or larger than 2**23.
    """
    total = RunningTotal(values.shape)
    total.add(checked(values, 1.0, name))
    return total.total()


def checked(values: Tensor, weights: Tensor | float, name: str) -> Terms:
    """Return weights * values as terms of an exact sum; `name` is used in the error.

    Raises:
        ParameterError: a term is not finite or larger than 2**23.
    """
    own, weights = values.detach().cpu(), torch.as_tensor(weights, dtype=torch.float64)
    own = (own if own.dtype == torch.float64 else own.float()).contiguous()
    smallest, largest = _magnitudes(own.numpy().reshape(-1))
    bound = largest * largest_magnitude(weights)
    # The bound of the product may be exceeded although no product exceeds it: only then all are looked at.
    if not bound <= MAX_MAGNITUDE and not bool(((own.double() * weights).abs() <= MAX_MAGNITUDE).all()):
        raise ParameterError(
            f"{name!r} holds a value that is not finite or larger than {MAX_MAGNITUDE:.0f}; has the training diverged?"
        )
    return Terms(own, weights, bound, smallest)


def largest_magnitude(values: Tensor) -> float:
    """Return max |value|: 0 without values, NaN if one of them is."""
    return float(torch.stack(torch.aminmax(values)).abs().max()) if values.numel() else 0.0


def unequal_shapes(a: torch.Size, b: torch.Size) -> ParameterError:
    """Return the error of two tensors that cannot be added."""
    return ParameterError(
        f"Tensors of shapes {tuple(a)} and {tuple(b)} were to be summed; expected equal shapes. Do all sites use the "
        "same plan?"
    )


def _magnitudes(values: NDArray) -> tuple[NDArray, float]:
    """Return min |value| of each block, and max |value| of all: 0 without values, NaN if one of them is."""
    blocks = _blocks(values)
    bounds = np.zeros((2, len(blocks)))
    scratch = np.empty_like(values[:_BLOCK])
    for i, block in enumerate(blocks):
        magnitudes = np.abs(values[block], out=scratch[: values[block].size])
        bounds[:, i] = magnitudes.min(), magnitudes.max()
    return bounds[0], float(bounds[1].max(initial=0.0))


def _blocks(values: NDArray) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, len(values), _BLOCK)]


def _add_short(short: NDArray, fine: NDArray, terms: Terms) -> None:
    """Add short terms to a float64 sum, and what of their smallest values is no multiple of its unit to `fine`."""
    short, fine, values = short.reshape(-1), fine.reshape(-1), terms.values.numpy().reshape(-1)
    weight = np.float64(terms.integer_weight)
    small = _where_small(values, terms.smallest)
    small_terms = values[small] * weight
    rounded = (small_terms + _SHORT_ROUNDER) - _SHORT_ROUNDER
    small_sums = short[small] + rounded
    fine[small] += np.rint((small_terms - rounded) / FINE_UNIT).astype(np.int64)
    _add_multiple(short, values, weight)
    short[small] = small_sums


def _where_small(values: NDArray, smallest: NDArray) -> NDArray:
    """Return the indices of the values too small to be multiples of the short unit, by the least of each block."""
    found = [
        block.start + np.flatnonzero(np.abs(values[block]) < _SMALLEST_SHORT)
        for block, least in zip(_blocks(values), smallest, strict=True)
        if least < _SMALLEST_SHORT
    ]
    return np.concatenate(found) if found else np.zeros(0, np.intp)


def _add_multiple(total: NDArray, values: NDArray, weight: np.float64) -> None:
    """Add weight * values to a float64 total, in place."""
    if weight == 1:
        np.add(total, values, out=total)
        return
    scratch = np.empty(min(_BLOCK, values.size))
    for block in _blocks(values):
        own = values[block]
        total[block] += np.multiply(own, weight, out=scratch[: own.size], dtype=np.float64)


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


def _carry(coarse: NDArray, fine: NDArray) -> None:
    """Move multiples of the coarse unit from `fine` to `coarse`, in place."""
    coarse, fine = coarse.reshape(-1), fine.reshape(-1)
    for block in _blocks(fine):
        carried = (fine[block] + 2 ** (_FINE_BITS - 1)) >> _FINE_BITS
        coarse[block] += carried
        fine[block] -= carried << _FINE_BITS
