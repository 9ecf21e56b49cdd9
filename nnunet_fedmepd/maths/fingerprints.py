"""Planning together: nnU-Net's plan for the pooled data, without pooling the data or a list of cases.

nnU-Net's planner reads per-case spacings and shapes, but uses few numbers of them: along every axis the median and the
10th percentile of the spacings, the median shape, and the median shape after resampling to the target spacing; then
the median relative size of the nonzero region, intensity statistics for each channel, and the number of cases. The
sites' reports (`planning_reports`) hold all of it:

    first reports -> pool -> planning_request -> second reports -> pooled_fingerprint

`pooled_fingerprint` writes a fingerprint of `N_FICTITIOUS` made-up cases that have exactly those statistics, so that
nnU-Net's stock planner makes of it the plan that it makes of the pooled data with spacings rounded to the declared
resolution. It can be sent to all sites: it holds nothing but what the plan itself tells.

Legend: N cases, 3 axes (in the order of nnU-Net's image reader, before transposition).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from nnunet_fedmepd.maths.planning_reports import (
    AXES,
    FirstReport,
    Histogram,
    IntensityMoments,
    PlanningRequest,
    PlanningResolution,
    SecondReport,
    check,
)

# nnU-Net's ANISO_THRESHOLD: how much coarser than the others an axis must be to be treated by itself.
ANISOTROPY_THRESHOLD = 3.0
# Enough for the 10th percentile to lie beside the two cases that carry the shapes; even, for medians between integers.
N_FICTITIOUS = 22
PERCENTILES = {"percentile_00_5": 0.5, "median": 50.0, "percentile_99_5": 99.5}


@dataclass(frozen=True)
class PooledStatistics:
    """What the first reports say about all cases together; per axis where not said otherwise."""

    resolution: PlanningResolution
    n_cases: int
    spacing_median_mm: tuple[float, ...]
    spacing_percentile_10_mm: tuple[float, ...]
    shape_median: tuple[float, ...]
    relative_size_median: float
    intensities: Mapping[str, IntensityMoments]


def pool(reports: Sequence[FirstReport]) -> PooledStatistics:
    """Return the statistics of all sites' cases together, the same in whatever order the reports come.

    Raises:
        DatasetError: no report, or reports of different resolutions.
    """
    check(len(reports) >= 1, "No site reported", "at least one first report")
    _check_resolutions(reports, reports[0].resolution)
    resolution = reports[0].resolution
    spacings = [_pooled_values(r.spacings[axis] for r in reports) / resolution.steps_per_mm for axis in range(AXES)]
    shapes = [_pooled_values(r.shapes[axis] for r in reports) for axis in range(AXES)]
    return PooledStatistics(
        resolution,
        sum(report.n_cases for report in reports),
        tuple(float(np.percentile(values, 50)) for values in spacings),
        tuple(float(np.percentile(values, 10)) for values in spacings),
        tuple(float(np.median(values)) for values in shapes),
        float(np.median(_pooled_values(r.relative_sizes for r in reports)) / resolution.size_steps),
        _pooled_moments(reports),
    )


def planning_request(pooled: PooledStatistics) -> PlanningRequest:
    """Return what the coordinator announces between the phases."""
    return PlanningRequest(
        target_spacing(pooled.spacing_median_mm, pooled.spacing_percentile_10_mm, pooled.shape_median),
        {modality: (m.minimum, m.maximum) for modality, m in pooled.intensities.items()},
    )


def target_spacing(
    spacing_median_mm: Sequence[float], spacing_percentile_10_mm: Sequence[float], shape_median: Sequence[float]
) -> tuple[float, ...]:
    """Return the spacing to resample to, by nnU-Net's rule (Isensee et al., Nature Methods 2021).

    It is the median along each axis. An axis that is more than 3 times coarser than the others, with less than a
    third of their voxels, gets its 10th percentile instead, but never less than the others.
    """
    target = list(spacing_median_mm)
    worst = int(np.argmax(target))
    others = [axis for axis in range(AXES) if axis != worst]
    coarsest_other = max(target[axis] for axis in others)
    coarse = target[worst] > ANISOTROPY_THRESHOLD * coarsest_other
    few_voxels = shape_median[worst] * ANISOTROPY_THRESHOLD < min(shape_median[axis] for axis in others)
    if coarse and few_voxels:
        finer = spacing_percentile_10_mm[worst]
        target[worst] = finer if finer >= coarsest_other else coarsest_other + 1e-5
    return tuple(target)


def pooled_fingerprint(
    pooled: PooledStatistics, request: PlanningRequest, reports: Sequence[SecondReport], modalities: Sequence[str]
) -> dict[str, Any]:
    """Return a `dataset_fingerprint.json` of made-up cases from which nnU-Net makes the pooled data's plan.

    Args:
        pooled: from phase 1.
        request: what the sites were asked.
        reports: the sites' answers, from the sites whose first reports were pooled.
        modalities: names in the order of the plan's channels.

    Raises:
        DatasetError: the reports are not those of the pooled sites, or no site has foreground voxels of a modality.
    """
    _check_second_reports(reports, pooled)
    axes = [
        _fictitious_axis(
            pooled.spacing_median_mm[axis],
            pooled.spacing_percentile_10_mm[axis],
            pooled.shape_median[axis],
            float(np.median(_pooled_values(r.shapes[axis] for r in reports))),
            request.target_spacing_mm[axis],
        )
        for axis in range(AXES)
    ]
    return {
        "comment": f"{N_FICTITIOUS} made-up cases with the statistics of {pooled.n_cases} cases of a federation",
        "spacings": np.stack([spacings for spacings, _ in axes], 1).tolist(),
        "shapes_after_crop": np.stack([shapes for _, shapes in axes], 1).tolist(),
        "foreground_intensity_properties_per_channel": {
            str(channel): _intensity_properties(pooled, reports, modality)
            for channel, modality in enumerate(modalities)
        },
        "median_relative_size_after_cropping": pooled.relative_size_median,
    }


def _fictitious_axis(
    spacing_median: float, spacing_percentile_10: float, shape_median: float, resampled_median: float, target: float
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Return spacings and shapes of N_FICTITIOUS cases along one axis, with the statistics given.

    Two cases have the median shape and such spacings that they are resampled to the two integers around the median
    resampled shape. Half of the others are too small to matter in both medians, half too large. The others' spacings
    are the 10th percentile and the median, so many of each that these two come out whatever the first two spacings.
    """
    middle = np.array([math.floor(resampled_median), math.ceil(resampled_median)])
    n_fine, n_small = 6, N_FICTITIOUS // 2 - 1
    spacings = np.full(N_FICTITIOUS, spacing_median)
    spacings[:2] = middle * target / shape_median
    spacings[2 : 2 + n_fine] = spacing_percentile_10
    small, large = slice(2, 2 + n_small), slice(2 + n_small, None)
    shapes = np.full(N_FICTITIOUS, shape_median)
    shapes[small] = np.minimum(shape_median, middle[0] * target / spacings[small])
    shapes[large] = np.maximum(shape_median, middle[1] * target / spacings[large])
    return spacings, shapes


def _intensity_properties(pooled: PooledStatistics, reports: Sequence[SecondReport], modality: str) -> dict[str, float]:
    check(
        modality in pooled.intensities,
        f"No site has a foreground voxel of modality {modality}",
        "at least one site with the modality; remove it from the federation's modalities",
    )
    moments = pooled.intensities[modality]
    counts = np.sum([r.intensities[modality] for r in reports if modality in r.intensities], 0)
    check(
        int(np.sum(counts)) == moments.n_voxels,
        f"The second reports count {int(np.sum(counts))} voxels of {modality}, the first ones {moments.n_voxels}",
        "both phases answered by the same sites from the same cases",
    )
    percentiles = _histogram_percentiles(counts, moments, list(PERCENTILES.values()))
    mean = Fraction(moments.total) / moments.n_voxels
    variance = Fraction(moments.total_of_squares) / moments.n_voxels - mean**2
    return {
        "mean": float(mean),
        "std": math.sqrt(max(float(variance), 0.0)),
        "min": moments.minimum,
        "max": moments.maximum,
        **dict(zip(PERCENTILES, percentiles, strict=True)),
    }


def _histogram_percentiles(counts: np.ndarray, moments: IntensityMoments, percentiles: list[float]) -> list[float]:
    """Return percentiles, each within one bin of that of the values, whose k-th is taken to lie at rank k + 1/2."""
    edges = np.linspace(moments.minimum, moments.maximum, len(counts) + 1)
    ranks = np.array(percentiles) / 100 * (moments.n_voxels - 1) + 0.5
    return [float(value) for value in np.interp(ranks, np.concatenate([[0], np.cumsum(counts)]), edges)]


def _pooled_moments(reports: Sequence[FirstReport]) -> dict[str, IntensityMoments]:
    pooled = {}
    for modality in sorted({name for report in reports for name in report.intensities}):
        moments = [report.intensities[modality] for report in reports if modality in report.intensities]
        pooled[modality] = IntensityMoments(
            sum(m.n_voxels for m in moments),
            math.fsum(m.total for m in moments),
            math.fsum(m.total_of_squares for m in moments),
            min(m.minimum for m in moments),
            max(m.maximum for m in moments),
        )
    return pooled


def _pooled_values(histograms: Iterable[Histogram]) -> Integer[np.ndarray, " N"]:
    return np.sort(np.concatenate([histogram.values() for histogram in histograms]))


def _check_resolutions(reports: Sequence[FirstReport] | Sequence[SecondReport], expected: PlanningResolution) -> None:
    for report in reports:
        check(report.resolution == expected, f"A site reports at {report.resolution}", str(expected))


def _check_second_reports(reports: Sequence[SecondReport], pooled: PooledStatistics) -> None:
    _check_resolutions(reports, pooled.resolution)
    n_cases = sum(report.shapes[0].total for report in reports)
    check(
        n_cases == pooled.n_cases,
        f"The second reports count {n_cases} cases, the first ones {pooled.n_cases}",
        "both phases answered by the same sites from the same cases",
    )
