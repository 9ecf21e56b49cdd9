"""What a site's training cases say for planning: analysed once, kept at the site."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.maths.planning_reports import SiteCases
from nnunet_fedmepd.nnunet_plugin.atomic_files import replacing
from nnunet_fedmepd.nnunet_plugin.fingerprint import (
    SAMPLES_PER_CASE,
    CaseFingerprint,
    analyse_case,
    intensity_statistics,
)
from nnunet_fedmepd.nnunet_plugin.raw_dataset import CaseFiles, RawDataset

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
        DatasetError: an image cannot be read, or a modality has no foreground voxel in any case.
    """
    file = dataset.preprocessed / CACHE
    state = f"{dataset.files_digest()} {SAMPLES_PER_CASE} {_FORMAT}"
    cases = _load(file, state)
    if cases is None:
        cases = _analysed(dataset, n_threads, advance)
        _save(cases, file, state)
    return cases


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
    fingerprints = []
    with ThreadPoolExecutor(max(1, n_threads)) as pool:
        for fingerprint in pool.map(lambda item: _analyse(dataset, *item), dataset.cases.items()):
            fingerprints.append(fingerprint)
            advance()
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


def _analyse(dataset: RawDataset, case: str, files: CaseFiles) -> CaseFingerprint:
    try:
        return analyse_case(list(files.images), files.label, dataset.reader())
    except Exception as error:  # readers raise what they like
        raise DatasetError(
            "A training case cannot be read",
            case=case,
            file=files.images[0],
            expected="images and a label map of one shape",
            found=str(error).strip() or type(error).__name__,
            remedy="replace the damaged file, or remove the case",
        ) from error


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
