"""Everything that can be wrong with the cases of a site, found before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import SimpleITK

from dataset_conversion.assignment import SiteAssignment
from dataset_conversion.discovery import Case
from dataset_conversion.layouts import Layout
from dataset_conversion.parallel import for_each
from dataset_conversion.volumes import Geometry, check_labels, read_volume
from nnunet_fedmepd.errors import DatasetError

_MOST_NAMED = 10


@dataclass(frozen=True)
class CaseAtSite:
    """A case as its site has it.

    Args:
        case: the case.
        site: the site's name.
        modalities: what the site has.
        held_out: a test case, whose segmentation may be missing.
        labels: the release's labels and what becomes of them.
    """

    case: Case
    site: str
    modalities: tuple[str, ...]
    held_out: bool
    labels: Mapping[int, int]

    @property
    def scans(self) -> dict[str, Path]:
        """The site's modality -> file, of those that exist."""
        return {m: self.case.scans[m] for m in self.modalities if m in self.case.scans}


@dataclass(frozen=True)
class _Finding:
    absent: tuple[str, ...] = ()
    problem: DatasetError | None = None


def cases_at_sites(layout: Layout, sites: Sequence[SiteAssignment], cases: Mapping[str, Case]) -> list[CaseAtSite]:
    """Return every case with what its site has, site by site."""
    return [
        CaseAtSite(cases[name], site.name, site.modalities, name in site.test, layout.labels)
        for site in sites
        for name in site.cases
    ]


def validate(cases: Sequence[CaseAtSite], *, workers: int = 1) -> dict[str, tuple[str, ...]]:
    """Read every scan and segmentation once and return case -> absent modalities, of the cases that lack some.

    A modality is absent from a case if its file is missing, or zero everywhere.

    Raises:
        DatasetError: the first case at fault, with the names of the others. At fault is a case with an unreadable file,
            voxels that are no numbers, scans on different grids, an unknown label, no segmentation, or none of its
            site's scans; and a site with a modality that none of its training cases has.
    """
    findings = for_each(_find, cases, workers=workers, description="Checking cases")
    faulty = [(case.case.name, finding.problem) for case, finding in zip(cases, findings, strict=True)]
    problems = [(name, problem) for name, problem in faulty if problem is not None]
    if problems:
        raise _with_others(problems[0][1], [name for name, _ in problems[1:]])
    absent = {case.case.name: finding.absent for case, finding in zip(cases, findings, strict=True) if finding.absent}
    _check_modalities_occur(cases, absent)
    return absent


def _find(case: CaseAtSite) -> _Finding:
    try:
        return _Finding(absent=check_case(case))
    except DatasetError as problem:
        return _Finding(problem=problem)


def check_case(case: CaseAtSite) -> tuple[str, ...]:
    """Read one case and return the site's modalities that it lacks.

    Raises:
        DatasetError: see `validate`.
    """
    grid: tuple[Path, Geometry] | None = None
    present: list[str] = []
    for modality, file in case.scans.items():
        scan = read_volume(file, case.case.name)
        grid = grid or (file, Geometry.of(scan))
        _check_grid(scan, file, grid, case)
        if SimpleITK.GetArrayViewFromImage(scan).any():
            present.append(modality)
    if grid is None or not present:
        raise _no_scan(case)
    _check_segmentation(case, grid)
    return tuple(m for m in case.modalities if m not in present)


def _check_grid(volume: SimpleITK.Image, file: Path, grid: tuple[Path, Geometry], case: CaseAtSite) -> None:
    reference, geometry = grid
    if difference := geometry.first_difference(Geometry.of(volume)):
        name, expected, found = difference
        raise DatasetError(
            f"Different {name} within a case",
            case=case.case.name,
            file=file,
            expected=f"{name} {expected} as in {reference.name}",
            found=f"{name} {found}",
            remedy="resample the scans of the case to one grid, or correct the header",
        )


def _check_segmentation(case: CaseAtSite, grid: tuple[Path, Geometry]) -> None:
    file = case.case.segmentation
    if file is None:
        if case.held_out:
            return
        raise DatasetError(
            "Missing segmentation of a training case",
            case=case.case.name,
            file=case.case.folder,
            expected="a segmentation named as in the release, ending in seg.nii.gz or seg.nii",
            found=_names(case.case.folder),
            remedy="add the segmentation, or make the case a test case",
        )
    segmentation = read_volume(file, case.case.name)
    _check_grid(segmentation, file, grid, case)
    check_labels(segmentation, case.labels, file, case.case.name)


def _no_scan(case: CaseAtSite) -> DatasetError:
    return DatasetError(
        f"A case lacks all scans of site {case.site}",
        case=case.case.name,
        file=case.case.folder,
        expected=f"at least one of {', '.join(case.modalities)} that is not zero everywhere",
        found=_names(case.case.folder),
        remedy="add a scan or take the case out of the site",
    )


def _names(folder: Path) -> str:
    return ", ".join(sorted(child.name for child in folder.iterdir())) or "an empty folder"


def _check_modalities_occur(cases: Sequence[CaseAtSite], absent: Mapping[str, tuple[str, ...]]) -> None:
    sites: dict[str, tuple[str, ...]] = {case.site: case.modalities for case in cases}
    for site, modalities in sites.items():
        training = [case.case for case in cases if case.site == site and not case.held_out]
        for modality in modalities:
            if training and all(modality in absent.get(case.name, ()) for case in training):
                raise DatasetError(
                    f"No training case of site {site} has a {modality} scan",
                    case=training[0].name,
                    file=training[0].folder,
                    expected=f"a {modality} scan in at least one of the site's {len(training)} training cases",
                    found=_names(training[0].folder),
                    remedy="correct the file names, or leave the modality out of the site's modalities",
                )


def _with_others(problem: DatasetError, others: Sequence[str]) -> DatasetError:
    if not others:
        return problem
    named = ", ".join(others[:_MOST_NAMED]) + (", ..." if len(others) > _MOST_NAMED else "")
    remedy = f"{problem.remedy + '; ' if problem.remedy else ''}{len(others)} more cases are at fault: {named}"
    return DatasetError(
        problem.problem,
        case=problem.case,
        file=problem.file,
        expected=problem.expected,
        found=problem.found,
        remedy=remedy,
    )
