"""Exact sums against fractions of whole numbers."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch

from nnunet_fedmepd.maths.exact_sums import COARSE_UNIT, FINE_UNIT, RunningTotal, exact

N_VALUES = 40_000  # more than are worked on at once


def as_fractions(total, where):
    pairs = zip(total.coarse[where].tolist(), total.fine[where].tolist(), strict=True)
    return [c * Fraction(COARSE_UNIT) + f * Fraction(FINE_UNIT) for c, f in pairs]


def terms(seed, largest):
    """Values of every size down to 2**-70, some zero, all multiples of 2**-72, at most `largest`."""
    generator = torch.Generator().manual_seed(seed)
    exponents = torch.randint(-48, 1, (N_VALUES,), generator=generator).double()
    values = torch.randint(-(2**24) + 1, 2**24, (N_VALUES,), generator=generator) * 2.0 ** (exponents - 24)
    values[::7] = 0
    return (values * largest).float()


def summed(contributions):
    running = RunningTotal(torch.Size([N_VALUES]))
    for values, weight in contributions:
        running.add(values, weight)
    return running.total()


@pytest.mark.parametrize("largest", [2.0**-30, 1, 2**18])
@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 7, 30], [1, 0.3, 2]], ids=str)
def test_a_sum_is_that_of_the_fractions_in_every_order(weights, largest):
    contributions = [(terms(seed, largest), float(w)) for seed, w in enumerate(weights)] * 4
    total = summed(contributions)
    for order in ([3, 0, 1, 2, *range(4, 12)], list(reversed(range(12)))):
        other = summed([contributions[i] for i in order])
        assert torch.equal(total.coarse, other.coarse)
        assert torch.equal(total.fine, other.fine)
    where = slice(0, 300)
    each = [
        [_rounded(v * w) for v, w in zip(values[where].double().tolist(), itertools.repeat(weight))]
        for values, weight in contributions
    ]
    assert as_fractions(total, where) == [sum(column) for column in zip(*each, strict=True)]


def _rounded(term):
    return round(Fraction(term) / Fraction(FINE_UNIT)) * Fraction(FINE_UNIT)


def test_nothing_can_be_summed_too():
    empty = torch.zeros(0, 3)
    assert exact(empty, "x").value().shape == (0, 3)
    weighted = RunningTotal(empty.shape)
    weighted.add(empty, torch.zeros(0, 1))
    assert weighted.total().value().shape == (0, 3)
