"""A BraTS release to one nnU-Net raw dataset per site: everything checked first, then everything written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path

from dataset_conversion.assignment import SiteAssignment, check_assignments, in_site_order
from dataset_conversion.discovery import Case, find_cases
from dataset_conversion.layouts import Layout, find_layout
from dataset_conversion.partial import check_absent, complete_folder, writing_to
from dataset_conversion.patients import check_patients, patient_folds
from dataset_conversion.splits import one_site
from dataset_conversion.validation import cases_at_sites, validate
from dataset_conversion.writing import write_cases, write_dataset_json, write_splits
from nnunet_fedmepd.errors import ConfigurationError

FIRST_ID = 500

_LAST_POSSIBLE_ID = 999
_PREFIX = re.compile(r"[A-Za-z0-9_.-]+")


def convert_brats(
    layout: str,
    source: str | PathLike[str],
    out: str | PathLike[str],
    sites: Sequence[SiteAssignment] | None = None,
    *,
    first_id: int = FIRST_ID,
    prefix: str | None = None,
    regions: bool = False,
    workers: int = 1,
) -> list[Path]:
    """Write one nnU-Net raw dataset per site and return their folders.

    Datasets are called `Dataset<id>_<prefix>_<site>`; ids ascend from `first_id`: the site called `lead` first, then
    the others by name (c2 before c10). Nothing is written unless every case is in order, and no dataset appears
    before all are complete.

    Args:
        layout: name of the release (`LAYOUTS`).
        source: its folder, or one that holds it one or two levels deeper.
        out: where to write, normally `$nnUNet_raw`.
        sites: who has which cases and modalities; by default one site `all` with every case and modality.
        first_id: the first dataset id, 1 to 999.
        prefix: start of the datasets' names, by default the release's title.
        regions: declare whole tumour, tumour core and enhancing tumour instead of the plain labels.
        workers: number of processes.

    Raises:
        ConfigurationError: an impossible layout, id or number of workers.
        DatasetError: bad input, output that exists already, or no room or permission to write; no dataset appears.
    """
    release = find_layout(layout)
    cases = find_cases(release, Path(source))
    return convert_cases(
        release,
        cases,
        Path(out),
        one_site(cases) if sites is None else sites,
        first_id=first_id,
        prefix=prefix,
        regions=regions,
        workers=workers,
    )


def convert_cases(
    layout: Layout,
    cases: Mapping[str, Case],
    out: Path,
    sites: Sequence[SiteAssignment],
    *,
    first_id: int = FIRST_ID,
    prefix: str | None = None,
    regions: bool = False,
    workers: int = 1,
) -> list[Path]:
    """Do `convert_brats` on cases that are found already."""
    sites = in_site_order(sites)
    check_assignments(sites, cases)
    check_patients(sites, layout)
    targets = _targets(sites, out, first_id, layout.title if prefix is None else prefix)
    at_sites = cases_at_sites(layout, sites, cases)
    absent = validate(at_sites, workers=workers)
    with writing_to(out), ExitStack() as stack:
        folders = {site.name: stack.enter_context(complete_folder(targets[site.name])) for site in sites}
        write_cases(at_sites, folders, workers=workers)
        for site in sites:
            write_dataset_json(folders[site.name], site, layout.name, absent, regions=regions)
            write_splits(folders[site.name], patient_folds(site, layout))
    return list(targets.values())


def _check_prefix(prefix: str) -> None:
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"Prefix {prefix!r} cannot be part of a folder's name: expected letters, digits, '_', '.' and '-'."
        )


def _targets(sites: Sequence[SiteAssignment], out: Path, first_id: int, prefix: str) -> dict[str, Path]:
    _check_prefix(prefix)
    last_id = first_id + len(sites) - 1
    if first_id < 1 or last_id > _LAST_POSSIBLE_ID:
        raise ConfigurationError(
            f"Dataset ids {first_id} to {last_id} are out of nnU-Net's range 1 to {_LAST_POSSIBLE_ID}: "
            f"{len(sites)} sites need as many ids. Choose another first id."
        )
    targets = {site.name: out / f"Dataset{first_id + i:03d}_{prefix}_{site.name}" for i, site in enumerate(sites)}
    for target in targets.values():
        # nnU-Net refuses two datasets of one id, so any dataset of that id is in the way.
        for existing in sorted(out.glob(f"{target.name[: len('Dataset000')]}_*")):
            check_absent(existing)
    return targets
