"""What a site's training cases say for planning: analysed once, kept at the site."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.maths.planning_reports import SiteCases
from nnunet_fedmepd.nnunet_plugin.atomic_files import replacing
from nnunet_fedmepd.nnunet_plugin.case_problems import for_every_case
from nnunet_fedmepd.nnunet_plugin.case_reading import check_case
from nnunet_fedmepd.nnunet_plugin.fingerprint import SAMPLES_PER_CASE, analyse_case, intensity_statistics
from nnunet_fedmepd.nnunet_plugin.raw_dataset import RawDataset

CACHE = "fedmepd_site_cases.npz"
_FORMAT = 2  # 1 had the relative sizes of boxes
_INTENSITIES = "intensities."


def site_cases(dataset: RawDataset, n_threads: int = 1, advance: Callable[[], None] = lambda: None) -> SiteCases:
    """Return a site's cases; they are read again only where a file was added, removed or changed.

    Args:
        dataset: of the site.
        n_threads: that read images.
        advance: called after each case that was read.

    Raises:
        DatasetError: cases cannot be read, label maps hold values that are not declared, or a modality has no
            foreground voxel in any case.
    """
    file = dataset.preprocessed / CACHE
    state = f"{dataset.files_digest()} {SAMPLES_PER_CASE} {_FORMAT} {dataset.labels}"
    cases = _load(file, state)
    if cases is None:
        cases = _analysed(dataset, n_threads, advance)
        _save(cases, file, state)
    return cases


def check_site_cases(dataset: RawDataset, n_threads: int = 1, advance: Callable[[], None] = lambda: None) -> None:
    """Check a site's cases before `site_cases` reads them: of NIfTI files only label maps and headers are read.

    Args:
        dataset: of the site.
        n_threads: that read.
        advance: called after each case.

    Raises:
        DatasetError: cases cannot be read, or label maps hold values that are not declared.
    """
    for_every_case(
        dataset.cases, lambda case, files: check_case(case, files, dataset.reader(), dataset.labels), n_threads, advance
    )


def site_fingerprint(cases: SiteCases, modalities: tuple[str, ...]) -> dict[str, Any]:
    """Return the `dataset_fingerprint.json` of a site's own cases, for its channels."""
    return {
        "spacings": cases.spacings_mm.tolist(),
        "shapes_after_crop": cases.shapes_after_crop.tolist(),
        "foreground_intensity_properties_per_channel": {
            str(channel): intensity_statistics(cases.intensities[modality])
            for channel, modality in enumerate(modalities)
        },
        "median_relative_size_after_cropping": float(np.median(cases.relative_sizes)),
    }


def _analysed(dataset: RawDataset, n_threads: int, advance: Callable[[], None]) -> SiteCases:
    fingerprints = for_every_case(
        dataset.cases,
        lambda case, files: analyse_case(case, files, dataset.reader(), dataset.labels),
        n_threads,
        advance,
    )
    intensities = {
        modality: np.concatenate([case.intensities[channel] for case in fingerprints])
        for channel, modality in enumerate(dataset.modalities)
    }
    if blank := [modality for modality, values in intensities.items() if not len(values)]:
        raise DatasetError(
            f"Modality {', '.join(blank)} has no foreground voxel with a signal in any case",
            file=dataset.folder,
            expected="at least one case with this scan and a labelled foreground",
            found=f"{len(fingerprints)} cases, all blank or without foreground",
            remedy="remove the channel from the dataset: a site must own what it names",
        )
    return SiteCases(
        np.array([case.spacing_mm for case in fingerprints], np.float64),
        np.array([case.shape_after_crop for case in fingerprints], np.int64),
        np.array([case.relative_size for case in fingerprints], np.float64),
        intensities,
    )


def _save(cases: SiteCases, file: Path, state: str) -> None:
    arrays: dict[str, Any] = {_INTENSITIES + modality: values for modality, values in cases.intensities.items()}
    arrays.update(
        state=np.array(state),
        spacings_mm=cases.spacings_mm,
        shapes_after_crop=cases.shapes_after_crop,
        relative_sizes=cases.relative_sizes,
    )
    with replacing(file) as partial, partial.open("wb") as stream:
        np.savez(stream, **arrays)


def _load(file: Path, state: str) -> SiteCases | None:
    """Return what was kept, or None where it is of other files, damaged or not there: then it is made anew."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            if str(kept["state"]) != state:
                return None
            intensities = {
                name.removeprefix(_INTENSITIES): kept[name] for name in kept.files if name.startswith(_INTENSITIES)
            }
            return SiteCases(kept["spacings_mm"], kept["shapes_after_crop"], kept["relative_sizes"], intensities)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
