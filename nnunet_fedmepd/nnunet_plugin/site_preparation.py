"""A site takes plans over: writes them, and preprocesses its cases as planned, all of them or none.

nnUNet_preprocessed/DATASET/PLANS.json, dataset.json, dataset_fingerprint.json, splits_final.json, gt_segmentations/
nnUNet_preprocessed/DATASET/DATA/                       the preprocessed cases; there only when complete
nnUNet_preprocessed/DATASET/DATA/fedmepd/made_of.json   what they were made of
nnUNet_preprocessed/DATASET/DATA.partial/               while they are being made

nnU-Net's own preprocessing makes DATA anew, without the note of what it was made of: its cases are not taken for ours.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fedmepd.errors import ConfigurationError, DatasetError, FedMEPDError
from nnunet_fedmepd.maths.planning_reports import SiteCases
from nnunet_fedmepd.nnunet_plugin.atomic_files import replacing, write_if_changed
from nnunet_fedmepd.nnunet_plugin.raw_dataset import CaseFiles, RawDataset
from nnunet_fedmepd.nnunet_plugin.registration import register
from nnunet_fedmepd.nnunet_plugin.site_cases import site_fingerprint

# In the data's folder; in a folder of its own, for nnU-Net takes every file beside the cases for part of one.
_MADE_OF = Path("fedmepd", "made_of.json")
# What does not change a preprocessed case.
_TRAINING_ONLY = ("architecture", "batch_size", "batch_dice", "median_image_size_in_voxels")

MapCases = Callable[[Callable[[Any], None], Iterable[Any]], Iterable[None]]
"""Applies a function to every case and gives the results in order: `map`, or that of an executor."""


@dataclass(frozen=True)
class Adopted:
    """What taking plans over changed.

    Attributes:
        plans_written: whether plans, description or fingerprint are new.
        n_preprocessed: cases that had to be preprocessed.
    """

    plans_written: bool
    n_preprocessed: int

    @property
    def changed(self) -> bool:
        """Whether anything is new."""
        return self.plans_written or self.n_preprocessed > 0


def adopt_plans(
    dataset: RawDataset,
    cases: SiteCases,
    plans: Mapping[str, Any],
    configuration: str,
    map_cases: MapCases = map,
    advance: Callable[[], None] = lambda: None,
) -> Adopted:
    """Write a site's plans and preprocess its cases, unless that has been done from the same plans and files.

    Whenever this is interrupted, no preprocessed data are found that do not belong to the plans beside them.

    Args:
        dataset: of the site.
        cases: of the site, for the fingerprint of its own data.
        plans: the site's copy of the pooled plans.
        configuration: such as `3d_fullres`.
        map_cases: `map`, or that of an executor.
        advance: called after each preprocessed case.

    Raises:
        ConfigurationError: the plans have no such configuration.
        DatasetError: a case cannot be preprocessed, or the splits were changed.
    """
    register()
    folder = dataset.preprocessed / _data_identifier(plans, configuration)
    made_of = _made_of(dataset, plans, configuration)
    complete = _is_complete(folder, made_of, dataset)
    if not complete:
        _remove(folder)
    written = _write_plans(dataset, cases, plans)
    _copy_splits(dataset)
    if not complete:
        partial = _preprocess(dataset, plans, configuration, folder, map_cases, advance)
        write_if_changed(partial / _MADE_OF, json.dumps(made_of, indent=2).encode())
        os.replace(partial, folder)
    return Adopted(written, 0 if complete else len(dataset.cases))


def _data_identifier(plans: Mapping[str, Any], configuration: str) -> str:
    if configuration not in plans["configurations"]:
        raise ConfigurationError(
            f"Configuration {configuration!r} was not planned for these data; expected one of "
            f"{sorted(plans['configurations'])}. Change planning.configuration in the federation file."
        )
    return str(_resolved(plans, configuration)["data_identifier"])


def _resolved(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    return dict(PlansManager(dict(plans)).get_configuration(configuration).configuration)


def _made_of(dataset: RawDataset, plans: Mapping[str, Any], configuration: str) -> dict[str, str]:
    """Return digests of all that preprocessed cases depend on."""
    general = {key: value for key, value in plans.items() if key not in ("configurations", "fedmepd")}
    used = {key: value for key, value in _resolved(plans, configuration).items() if key not in _TRAINING_ONLY}
    return {
        "plan": _digest([general, used]),
        "dataset_json": _digest(dataset.description),
        "files": dataset.files_digest(),
    }


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _is_complete(folder: Path, made_of: Mapping[str, str], dataset: RawDataset) -> bool:
    try:
        same = json.loads((folder / _MADE_OF).read_text()) == made_of
    except (FileNotFoundError, ValueError):
        return False
    truth = dataset.preprocessed / "gt_segmentations"
    ending = dataset.description["file_ending"]
    return same and all(
        (folder / f"{case}.pkl").is_file() and (truth / f"{case}{ending}").is_file() for case in dataset.cases
    )


def _remove(folder: Path) -> None:
    """Remove a folder in such a way that it is never half there under its name."""
    doomed = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    if folder.is_dir():
        os.replace(folder, doomed)
        shutil.rmtree(doomed)


def _write_plans(dataset: RawDataset, cases: SiteCases, plans: Mapping[str, Any]) -> bool:
    """Write plans, description and fingerprint as nnU-Net needs them, and return whether any was new."""
    fingerprint = site_fingerprint(cases, dataset.modalities)
    return any(
        [
            write_if_changed(dataset.preprocessed / "dataset.json", (dataset.folder / "dataset.json").read_bytes()),
            write_if_changed(
                dataset.preprocessed / "dataset_fingerprint.json", json.dumps(fingerprint, indent=2).encode()
            ),
            write_if_changed(
                dataset.preprocessed / f"{plans['plans_name']}.json", json.dumps(plans, indent=4).encode()
            ),
        ]
    )


def _copy_splits(dataset: RawDataset) -> None:
    """Copy splits that came with the dataset; the copy may have more folds, but no others."""
    source, target = dataset.folder / "splits_final.json", dataset.preprocessed / "splits_final.json"
    if not source.is_file():
        return
    if not target.is_file():
        write_if_changed(target, source.read_bytes())
        return
    given, used = load_json(str(source)), load_json(str(target))
    if given != used[: len(given)]:
        raise DatasetError(
            "The splits that came with a dataset are not those that were used before",
            file=target,
            expected=f"the folds of {source}",
            remedy="remove the file that is wrong",
        )


def _preprocess(
    dataset: RawDataset,
    plans: Mapping[str, Any],
    configuration: str,
    folder: Path,
    map_cases: MapCases,
    advance: Callable[[], None],
) -> Path:
    """Preprocess all cases into a folder beside the one that they are for, and return it."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    work = functools.partial(_preprocess_case, dict(plans), configuration, dict(dataset.description), str(partial))
    for _ in map_cases(work, dataset.cases.items()):
        advance()
    for case, files in dataset.cases.items():
        ending = dataset.description["file_ending"]
        with replacing(dataset.preprocessed / "gt_segmentations" / f"{case}{ending}") as copy:
            shutil.copyfile(files.label, copy)
    return partial


def _preprocess_case(
    plans: dict[str, Any], configuration: str, description: dict[str, Any], folder: str, case: tuple[str, CaseFiles]
) -> None:
    """Preprocess one case; everything comes as an argument, for this may run in a process of its own."""
    register()
    name, files = case
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    target = str(Path(folder) / name)
    try:
        settings.preprocessor_class(verbose=False).run_case_save(
            target, list(files.images), files.label, manager, settings, description
        )
    except FedMEPDError:
        raise
    except Exception as error:  # readers and resampling raise what they like
        raise DatasetError(
            "A training case cannot be preprocessed",
            case=name,
            file=files.images[0],
            found=str(error).strip() or type(error).__name__,
            remedy="replace the case's files, or remove the case",
        ) from error
