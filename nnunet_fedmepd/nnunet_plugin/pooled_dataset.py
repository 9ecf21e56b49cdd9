"""A preprocessed dataset made of those of several sites: all cases that have certain modalities.

Nothing is planned or preprocessed again. The sites were planned together, so their preprocessed cases have one spacing;
cases of sites with exactly these channels are linked, of others the wanted channels are copied.

    DATASET/PLANS.json, dataset.json, dataset_fingerprint.json    of a site with exactly these modalities
    DATASET/splits_final.json                                     one fold: the sites' own folds together
    DATASET/DATA/SITE__CASE.b2nd, ...                             the cases
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, infer_dataset_class, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fedmepd.errors import UnsupportedError
from nnunet_fedmepd.nnunet_plugin.folds import find_fold


@dataclass(frozen=True)
class Donor:
    """A site whose cases are taken.

    Attributes:
        site: its name.
        folder: its dataset in nnUNet_preprocessed.
        modalities: canonical names in the order of its channels.
    """

    site: str
    folder: Path
    modalities: tuple[str, ...]


@dataclass(frozen=True)
class Pool:
    """What is put together.

    Attributes:
        modalities: the wanted channels, in this order.
        model_site: a site with exactly these modalities in this order: its plans and description are taken.
        donors: the sites whose cases are taken; all own these modalities.
        plans_name: file name of the plans, without the ending.
        configuration: nnU-Net's.
        fold: of the sites' folds, or `all`.
    """

    modalities: tuple[str, ...]
    model_site: Donor
    donors: tuple[Donor, ...]
    plans_name: str
    configuration: str
    fold: int | str


def make_pooled_dataset(pool: Pool, target: Path) -> None:
    """Put a pooled dataset together, unless that has been done from the same cases; the folder is whole or not there.

    Raises:
        UnsupportedError: the preprocessed cases are not in nnU-Net's current format.
    """
    plans = json.loads((pool.model_site.folder / f"{pool.plans_name}.json").read_text())
    manager = PlansManager(plans).get_configuration(pool.configuration)
    data, made_of = manager.data_identifier, _made_of(pool, manager.data_identifier)
    marker = target / "made_of.json"
    if marker.is_file() and json.loads(marker.read_text()) == made_of:
        return
    shutil.rmtree(target, ignore_errors=True)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / data).mkdir(parents=True)
    taken = {
        donor.site: _take_cases(donor, data, pool.modalities, manager.patch_size, partial) for donor in pool.donors
    }
    _write_description(pool, plans, sum(map(len, taken.values())), target.name, partial)
    if pool.fold != "all":
        splits = [_joined_fold(pool, data, taken)]
        (partial / "splits_final.json").write_text(json.dumps(splits, indent=2))
    (partial / marker.name).write_text(json.dumps(made_of))
    os.replace(partial, target)


def _made_of(pool: Pool, data: str) -> dict[str, Any]:
    """Return what a pooled dataset depends on: plans, splits and the state of every file."""
    files = [
        [donor.site, file.name, file.stat().st_size, file.stat().st_mtime_ns]
        for donor in pool.donors
        for file in sorted((donor.folder / data).iterdir())
    ]
    folds = {donor.site: _as_lists(donor, data, pool.fold) for donor in pool.donors}
    plans = (pool.model_site.folder / f"{pool.plans_name}.json").read_text()
    return {"files": files, "folds": folds, "plans": plans, "modalities": list(pool.modalities)}


def _as_lists(donor: Donor, data: str, fold: int | str) -> list[list[str]]:
    found = find_fold(donor.folder, donor.folder / data, fold)
    return [list(map(str, found.train)), list(map(str, found.val))]


def _take_cases(
    donor: Donor, data: str, modalities: Sequence[str], patch_size: Sequence[int], target: Path
) -> list[str]:
    """Link or copy a site's cases, and return which; a case without any of the modalities is left out."""
    source = donor.folder / data
    kind = infer_dataset_class(str(source))
    if kind is not nnUNetDatasetBlosc2:
        raise UnsupportedError(f"{source} is not in nnU-Net's format b2nd, which pooling needs. Preprocess it again.")
    cases = sorted(kind.get_identifiers(str(source)))
    if tuple(modalities) == donor.modalities:
        for case in cases:
            for ending in (".b2nd", "_seg.b2nd", ".pkl"):
                _link(source / f"{case}{ending}", target / data / f"{_pooled_name(donor, case)}{ending}")
        return cases
    channels = [donor.modalities.index(modality) for modality in modalities]
    dataset = kind(str(source))
    return [
        case
        for case in cases
        if _copy_channels(dataset, case, channels, patch_size, target / data / _pooled_name(donor, case))
    ]


def _copy_channels(
    dataset: nnUNetDatasetBlosc2, case: str, channels: Sequence[int], patch_size: Sequence[int], target: Path
) -> bool:
    """Copy some channels of a case, and return whether any of them was acquired."""
    data, seg, _, properties = dataset.load_case(case)
    wanted, labels = data[:][list(channels)], seg[:]
    if not wanted.any():
        return False
    (blocks, chunks), (blocks_seg, chunks_seg) = (
        comp_blosc2_params(array.shape, tuple(patch_size), array.itemsize) for array in (wanted, labels)
    )
    nnUNetDatasetBlosc2.save_case(
        *(wanted, labels, properties, str(target)),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=chunks_seg,
        blocks_seg=blocks_seg,
    )
    return True


def _link(source: Path, target: Path) -> None:
    """Link a file; where the file system cannot, copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _joined_fold(pool: Pool, data: str, taken: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    joined: dict[str, list[str]] = {"train": [], "val": []}
    for donor in pool.donors:
        for part, cases in zip(joined.values(), _as_lists(donor, data, pool.fold), strict=True):
            part += [_pooled_name(donor, case) for case in cases if case in taken[donor.site]]
    return joined


def _write_description(pool: Pool, plans: Mapping[str, Any], n_cases: int, name: str, folder: Path) -> None:
    description = json.loads((pool.model_site.folder / "dataset.json").read_text("utf-8"))
    (folder / "dataset.json").write_text(json.dumps({**description, "numTraining": n_cases}, indent=2))
    (folder / f"{pool.plans_name}.json").write_text(json.dumps({**plans, "dataset_name": name}, indent=4))
    shutil.copyfile(pool.model_site.folder / "dataset_fingerprint.json", folder / "dataset_fingerprint.json")


def _pooled_name(donor: Donor, case: str) -> str:
    return f"{donor.site}__{case}"
