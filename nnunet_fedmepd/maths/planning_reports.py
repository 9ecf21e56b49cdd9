"""What leaves a site when a federation plans together: two reports, and what they are made from.

A site sends a `FirstReport`: histograms at a declared resolution, each of one quantity along one axis (which spacing
goes with which shape stays unknown), and sums over foreground voxels by modality. The coordinator answers with a
`PlanningRequest`: the target spacing and the intensity range of each modality. The site then sends a `SecondReport`:
histograms of its shapes at the target spacing, and of its intensities over their range.

What a histogram still tells the coordinator: the values that occur at a site, unlinked. At a site with a single case
these are the case's spacing and size.

Legend: N cases, 3 axes (in the order of nnU-Net's image reader, before transposition), V sampled foreground voxels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, Real

from nnunet_fedmepd.errors import DatasetError

AXES = 3


@dataclass(frozen=True)
class PlanningResolution:
    """How finely sites report; the same at every site.

    Attributes:
        steps_per_mm: spacings are rounded to 1 / steps_per_mm mm.
        size_steps: relative sizes of the nonzero region are rounded to 1 / size_steps.
        intensity_bins: bins over the range of a modality's intensities.
    """

    steps_per_mm: int = 10_000
    size_steps: int = 10_000
    intensity_bins: int = 4096

    def __post_init__(self) -> None:
        for name in ("steps_per_mm", "size_steps", "intensity_bins"):
            check(getattr(self, name) >= 1, f"The planning resolution has {name} = {getattr(self, name)}", "at least 1")


@dataclass(frozen=True)
class Histogram:
    """How often each integer occurs.

    Attributes:
        bins: integers from 0, ascending, each with at least one count.
        counts: of each bin.
    """

    bins: tuple[int, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip(self.bins, self.bins[1:], strict=False))
        valid = len(self.bins) == len(self.counts) and ascending and min((*self.bins, 0)) >= 0
        check(valid and min((*self.counts, 1)) >= 1, "A histogram is malformed", "ascending bins with positive counts")

    @property
    def total(self) -> int:
        """Number of values counted."""
        return sum(self.counts)

    def values(self) -> Integer[np.ndarray, " N"]:
        """Return all values counted, ascending."""
        return np.repeat(np.array(self.bins, np.int64), self.counts)


@dataclass(frozen=True)
class IntensityMoments:
    """Sums over the sampled foreground voxels of one modality."""

    n_voxels: int
    total: float
    total_of_squares: float
    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        numbers = (self.total, self.total_of_squares, self.minimum, self.maximum)
        valid = self.n_voxels >= 1 and all(map(math.isfinite, numbers)) and self.minimum <= self.maximum
        check(valid, f"Intensity statistics are impossible: {self}", "finite sums over at least one voxel")


@dataclass(frozen=True)
class SiteCases:
    """A site's training cases. This never leaves the site.

    Attributes:
        spacings_mm: (N, 3).
        shapes_after_crop: (N, 3) voxels.
        relative_sizes: (N,) voxels of the nonzero region over voxels of the image.
        intensities: modality -> (V,) foreground intensities, sampled; modalities without any are left out.
    """

    spacings_mm: np.ndarray
    shapes_after_crop: np.ndarray
    relative_sizes: np.ndarray
    intensities: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class FirstReport:
    """All that leaves a site in phase 1.

    Attributes:
        resolution: unit of the histograms.
        n_cases: training cases.
        spacings: for each axis, in steps of 1 / steps_per_mm mm.
        shapes: for each axis, in voxels after cropping.
        relative_sizes: in steps of 1 / size_steps.
        intensities: modality -> sums.
    """

    resolution: PlanningResolution
    n_cases: int
    spacings: tuple[Histogram, ...]
    shapes: tuple[Histogram, ...]
    relative_sizes: Histogram
    intensities: Mapping[str, IntensityMoments]

    def __post_init__(self) -> None:
        check(self.n_cases >= 1, "A site reports no case", "at least one training case")
        for histograms, expected_number in ((self.spacings, AXES), (self.shapes, AXES), ((self.relative_sizes,), 1)):
            _check_histograms(histograms, expected_number, self.n_cases)
        check(min(h.bins[0] for h in (*self.spacings, *self.shapes)) >= 1, "A spacing or shape is 0", "at least 1 step")
        check(self.relative_sizes.bins[-1] <= self.resolution.size_steps, "A relative size is above 1", "at most 1")

    def describe(self) -> list[str]:
        """Return, line by line, everything in the report."""
        steps = self.resolution.steps_per_mm
        lines = [f"training cases: {self.n_cases}"]
        lines += [f"spacing in mm, axis {axis}: {_listed(h, steps)}" for axis, h in enumerate(self.spacings)]
        lines += [f"voxels after cropping, axis {axis}: {_listed(h)}" for axis, h in enumerate(self.shapes)]
        lines += [f"relative size of the nonzero region: {_listed(self.relative_sizes, self.resolution.size_steps)}"]
        return lines + [
            f"{modality}, {m.n_voxels} foreground voxels: sum {m.total:g}, sum of squares {m.total_of_squares:g}, "
            f"from {m.minimum:g} to {m.maximum:g}"
            for modality, m in self.intensities.items()
        ]


@dataclass(frozen=True)
class PlanningRequest:
    """What the coordinator announces between the phases.

    Attributes:
        target_spacing_mm: for each axis.
        intensity_ranges: modality -> (lowest, highest) intensity of all sites.
    """

    target_spacing_mm: tuple[float, ...]
    intensity_ranges: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class SecondReport:
    """All that leaves a site in phase 2.

    Attributes:
        resolution: number of intensity bins.
        shapes: for each axis, in voxels of the target spacing.
        intensities: modality -> counts of equal bins over the announced range.
    """

    resolution: PlanningResolution
    shapes: tuple[Histogram, ...]
    intensities: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        _check_histograms(self.shapes, AXES, self.shapes[0].total if self.shapes else 0)
        for modality, counts in self.intensities.items():
            valid = len(counts) == self.resolution.intensity_bins and min(counts) >= 0
            check(
                valid, f"The intensity histogram of {modality} is malformed", f"{self.resolution.intensity_bins} counts"
            )

    def describe(self) -> list[str]:
        """Return, line by line, everything in the report; of intensity histograms only their size and sum."""
        lines = [f"voxels at the target spacing, axis {axis}: {_listed(h)}" for axis, h in enumerate(self.shapes)]
        return lines + [
            f"{modality}: {len(counts)} counts of intensities, {sum(counts)} foreground voxels in all"
            for modality, counts in self.intensities.items()
        ]


def first_report(cases: SiteCases, resolution: PlanningResolution) -> FirstReport:
    """Return what a site tells in phase 1.

    Raises:
        DatasetError: no case, a spacing below the resolution, or a value that cannot be.
    """
    steps = _spacing_steps(cases, resolution)
    shapes = np.asarray(cases.shapes_after_crop)
    sizes = np.rint(np.asarray(cases.relative_sizes) * resolution.size_steps)
    return FirstReport(
        resolution,
        len(shapes),
        tuple(_histogram(steps[:, axis]) for axis in range(AXES)),
        tuple(_histogram(shapes[:, axis]) for axis in range(AXES)),
        _histogram(sizes),
        {modality: _moments(values) for modality, values in cases.intensities.items() if len(values)},
    )


def second_report(cases: SiteCases, request: PlanningRequest, resolution: PlanningResolution) -> SecondReport:
    """Return what a site tells in phase 2.

    Raises:
        DatasetError: no case, or a value that cannot be.
    """
    spacings = _spacing_steps(cases, resolution) / resolution.steps_per_mm
    # The order of operations and the rounding are those of nnU-Net's compute_new_shape.
    shapes = np.rint(spacings / np.array(request.target_spacing_mm) * np.asarray(cases.shapes_after_crop))
    return SecondReport(
        resolution,
        tuple(_histogram(shapes[:, axis]) for axis in range(AXES)),
        {
            modality: _intensity_counts(values, request.intensity_ranges[modality], resolution.intensity_bins)
            for modality, values in cases.intensities.items()
            if len(values)
        },
    )


def _intensity_counts(values: Real[np.ndarray, " V"], limits: tuple[float, float], n_bins: int) -> tuple[int, ...]:
    low, high = limits
    position = (np.asarray(values, np.float64) - low) / (high - low if high > low else 1.0)
    check(bool(((position >= 0) & (position <= 1)).all()), "Intensities changed between the phases", f"{low} to {high}")
    bins = np.minimum((position * n_bins).astype(np.int64), n_bins - 1)
    return tuple(np.bincount(bins, minlength=n_bins).tolist())


def _moments(values: Real[np.ndarray, " V"]) -> IntensityMoments:
    values = np.asarray(values, np.float64)
    return IntensityMoments(
        len(values), float(values.sum()), float((values**2).sum()), float(values.min()), float(values.max())
    )


def _spacing_steps(cases: SiteCases, resolution: PlanningResolution) -> Float[np.ndarray, "N 3"]:
    spacings = np.asarray(cases.spacings_mm, np.float64)
    valid = spacings.shape == (len(cases.shapes_after_crop), AXES) == np.shape(cases.shapes_after_crop)
    check(valid and len(spacings) > 0, f"Spacings have shape {spacings.shape}", "3 spacings and 3 voxel counts a case")
    steps = np.rint(spacings * resolution.steps_per_mm)
    check(
        bool((steps >= 1).all()),
        f"A spacing is {spacings.min()} mm",
        f"at least one step of the declared resolution, {1 / resolution.steps_per_mm} mm; declare a finer one",
    )
    return steps


def _histogram(values: Real[np.ndarray, " N"]) -> Histogram:
    check(bool(np.isfinite(values).all()), "A spacing, shape or size is not finite", "numbers")
    bins, counts = np.unique(np.asarray(values).astype(np.int64), return_counts=True)
    return Histogram(tuple(bins.tolist()), tuple(counts.tolist()))


def _listed(histogram: Histogram, steps: int = 1) -> str:
    return ", ".join(f"{b / steps:g} (x{n})" for b, n in zip(histogram.bins, histogram.counts, strict=True))


def _check_histograms(histograms: Sequence[Histogram], expected_number: int, n_cases: int) -> None:
    valid = len(histograms) == expected_number and all(h.total == n_cases >= 1 for h in histograms)
    check(valid, "The histograms of a report do not count the same cases", f"{expected_number} of {n_cases} cases each")


def check(condition: bool, problem: str, expected: str) -> None:
    """Raise a `DatasetError` of this problem unless the condition holds."""
    if not condition:
        raise DatasetError(problem, expected=expected)
