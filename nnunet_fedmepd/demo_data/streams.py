"""One random stream for each step of a case, so that a change in one step leaves the others' draws alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

_CASE_DOMAIN = 11
_SITE_DOMAIN = 7001


class Step(IntEnum):
    """The steps of a case that draw random numbers; the values are part of every generated data set."""

    HEAD = 0
    DISPLACEMENT = 1
    BRAIN_SURFACE = 2
    CORE_SHAPE = 3
    COMPOSITION = 4
    OEDEMA = 5
    CONFOUNDERS = 6
    IMAGES = 7


@dataclass(frozen=True)
class CaseStreams:
    """The random streams of one case; they depend on these three numbers alone."""

    seed: int
    site_index: int
    case_index: int

    def start(self, step: Step) -> np.random.Generator:
        """Return a new generator at the beginning of the step's stream."""
        entropy = [self.seed, _CASE_DOMAIN, self.site_index, self.case_index, int(step)]
        return np.random.default_rng(np.random.SeedSequence(entropy))


def start_site_stream(seed: int, site_index: int) -> np.random.Generator:
    """Return the generator from which the properties of one site are drawn."""
    return np.random.default_rng(np.random.SeedSequence([seed, _SITE_DOMAIN, site_index]))
