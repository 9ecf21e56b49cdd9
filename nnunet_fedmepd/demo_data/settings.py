"""The settings of a generated data set, and what values they may take."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from nnunet_fedmepd.demo_data.layouts import LAYOUTS, MOST_CASES_PER_SITE
from nnunet_fedmepd.demo_data.phantom import PhantomSettings
from nnunet_fedmepd.demo_data.sites import default_site_name
from nnunet_fedmepd.errors import ConfigurationError

BRATS_SHAPE = (240, 240, 155)
BRATS_SPACING_MM = 1.0

_SMALLEST_FIELD_OF_VIEW_MM = 100
_SPACING_RANGE_MM = (0.5, 5.0)
_SITE_NAME = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True)
class DemoDataSettings:
    """Everything that determines a generated data set.

    Args:
        shape: voxels along X, Y and Z; a brain that would not fit is made smaller.
        spacing_mm: edge of the cubic voxels.
        sites: number of sites.
        cases_per_site: one number for all sites, or one for each.
        val_per_site: how many cases of each site, those before the test cases, are marked `val`: they choose the model.
        test_per_site: how many cases, the last of each site, are marked `test`; all others `train`.
        seed: cases depend on it, their site's index and their index within the site.
        heterogeneity: how far sites differ; 0: only in grey value scale and slice blur, 1: usual, 2: strongly.
        confounders: strength of what resembles a tumour but is none; 0: nothing, 1: usual.
        mass_effect: how far tumours push the brain aside; 0: not at all, 1: usual.
        layout: `brats2018`, `brats2020` or `brats2023`: folders, file names and label values.
        site_names: letters, digits and `-`; the institutions of BraTS 2018 by default.

    Raises:
        ConfigurationError: a value is impossible.
    """

    shape: tuple[int, int, int] = (72, 88, 72)
    spacing_mm: float = 2.0
    sites: int = 4
    cases_per_site: int | tuple[int, ...] = 10
    val_per_site: int = 0
    test_per_site: int = 0
    seed: int = 1
    heterogeneity: float = 1.0
    confounders: float = 1.0
    mass_effect: float = 1.0
    layout: str = "brats2020"
    site_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _require(self.layout in LAYOUTS, "layout", f"one of {', '.join(LAYOUTS)}", self.layout)
        _require(self.seed >= 0, "seed", "0 or more", self.seed)
        _require(self.sites >= 1, "sites", "at least 1", self.sites)
        self._check_lattice()
        self._check_cases()
        self._check_names()
        for name, most in (("heterogeneity", 3), ("confounders", 2), ("mass_effect", 3)):
            value = getattr(self, name)
            _require(0 <= value <= most, name, f"a number from 0 to {most}", value)

    @property
    def case_counts(self) -> tuple[int, ...]:
        """The number of cases of each site."""
        return (self.cases_per_site,) * self.sites if isinstance(self.cases_per_site, int) else self.cases_per_site

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each site."""
        return self.site_names or tuple(default_site_name(index) for index in range(self.sites))

    @property
    def phantom(self) -> PhantomSettings:
        """The settings that all cases share."""
        return PhantomSettings(self.shape, self.spacing_mm, self.confounders, self.mass_effect)

    def _check_lattice(self) -> None:
        smallest, largest = _SPACING_RANGE_MM
        _require(smallest <= self.spacing_mm <= largest, "spacing", f"{smallest} to {largest} mm", self.spacing_mm)
        fewest = math.ceil(_SMALLEST_FIELD_OF_VIEW_MM / self.spacing_mm)
        _require(
            len(self.shape) == 3 and min(self.shape) >= fewest,
            "shape",
            f"3 numbers of at least {fewest} voxels, {_SMALLEST_FIELD_OF_VIEW_MM} mm at {self.spacing_mm:g} mm spacing",
            self.shape,
        )

    def _check_cases(self) -> None:
        counts = self.case_counts
        one_each = f"one number, or one for each of the {self.sites} sites"
        _require(len(counts) == self.sites, "cases-per-site", one_each, self.cases_per_site)
        in_range = all(1 <= count <= MOST_CASES_PER_SITE for count in counts)
        _require(in_range, "cases-per-site", f"1 to {MOST_CASES_PER_SITE}", self.cases_per_site)
        most = min(counts) - 1
        for name in ("test_per_site", "val_per_site"):
            count, option = getattr(self, name), name.replace("_", "-")
            leaves_some = f"0 to {most}, so that the smallest site keeps a training case"
            _require(0 <= count <= most, option, leaves_some, count)
            most -= count

    def _check_names(self) -> None:
        if self.site_names is None:
            return
        distinct = len(set(self.site_names)) == len(self.site_names) == self.sites
        _require(distinct, "site_names", f"{self.sites} different names", self.site_names)
        well_formed = all(_SITE_NAME.fullmatch(name) for name in self.site_names)
        _require(well_formed, "site_names", "names of letters, digits and '-'", self.site_names)


def _require(holds: bool, name: str, expected: str, found: object) -> None:
    if not holds:
        raise ConfigurationError(f"Demo data: {name}: expected {expected}; found {found}.")
