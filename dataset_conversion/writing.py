"""One nnU-Net raw dataset: images, labels and `dataset.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_conversion.assignment import SiteAssignment
from dataset_conversion.parallel import for_each
from dataset_conversion.validation import CaseAtSite
from dataset_conversion.volumes import copy_compressed, read_volume, relabelled, write_blank, write_volume
from nnunet_fedmepd.modalities import BRATS_LABELS, BRATS_MODALITIES, BRATS_REGIONS, BRATS_REGIONS_CLASS_ORDER

FILE_ENDING = ".nii.gz"


@dataclass(frozen=True)
class _Job:
    """A case and the dataset folder it goes into."""

    case: CaseAtSite
    dataset: Path


def write_cases(cases: Sequence[CaseAtSite], folders: Mapping[str, Path], *, workers: int = 1) -> None:
    """Write images and labels of validated cases.

    Scans, and labels that need no change, keep their bytes; a scan that does not exist becomes a blank image.

    Args:
        cases: what to write.
        folders: site -> folder of its dataset.
        workers: number of processes.
    """
    for folder in folders.values():
        for subfolder in "imagesTr", "labelsTr":
            (folder / subfolder).mkdir()
    for site in {case.site for case in cases if case.held_out}:
        for subfolder in "imagesTs", "labelsTs":
            (folders[site] / subfolder).mkdir()
    jobs = [_Job(case, folders[case.site]) for case in cases]
    for_each(_write_case, jobs, workers=workers, description="Writing cases")


def _write_case(job: _Job) -> None:
    case, subset = job.case, "Ts" if job.case.held_out else "Tr"
    scans = case.scans
    for channel, modality in enumerate(case.modalities):
        image = job.dataset / f"images{subset}" / f"{case.case.name}_{channel:04d}{FILE_ENDING}"
        if modality in scans:
            copy_compressed(scans[modality], image)
        else:
            write_blank(next(iter(scans.values())), image)
    if case.case.segmentation:
        _write_labels(case, case.case.segmentation, job.dataset / f"labels{subset}" / f"{case.case.name}{FILE_ENDING}")


def _write_labels(case: CaseAtSite, segmentation: Path, target: Path) -> None:
    if all(old == new for old, new in case.labels.items()):
        copy_compressed(segmentation, target)
        return
    labels = relabelled(read_volume(segmentation, case.case.name), case.labels)
    write_volume(labels, target)


def write_dataset_json(
    folder: Path, site: SiteAssignment, layout_name: str, absent: Mapping[str, tuple[str, ...]], *, regions: bool
) -> None:
    """Write a site's `dataset.json`; the object `fedmepd` in it is ours, nnU-Net keeps and ignores it.

    Args:
        folder: the dataset.
        site: whose it is.
        layout_name: the release it comes from.
        absent: case -> absent modalities, of all sites.
        regions: whole tumour, tumour core and enhancing tumour instead of the plain labels.
    """
    description: dict[str, Any] = {
        "channel_names": {str(channel): modality for channel, modality in enumerate(site.modalities)},
        **(_region_labels() if regions else {"labels": BRATS_LABELS}),
        "numTraining": len(site.training),
        "file_ending": FILE_ENDING,
        "fedmepd": {
            "canonical_modalities": list(BRATS_MODALITIES),
            "site": site.name,
            "absent_scans": {case: list(absent[case]) for case in site.cases if case in absent},
            "converted_from": layout_name,
        },
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def write_splits(folder: Path, folds: Sequence[Mapping[str, Sequence[str]]]) -> None:
    """Write a site's `splits_final.json`; without folds there is none, and nnU-Net makes its own."""
    if folds:
        (folder / "splits_final.json").write_text(json.dumps(folds, indent=2) + "\n", encoding="utf-8")


def _region_labels() -> dict[str, Any]:
    regions = {name: list(labels) for name, labels in BRATS_REGIONS.items()}
    return {"labels": {"background": 0, **regions}, "regions_class_order": list(BRATS_REGIONS_CLASS_ORDER)}
