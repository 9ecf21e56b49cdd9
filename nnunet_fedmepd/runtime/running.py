"""Runs a federation file in a folder, or goes on with it."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.training import overriding_variables
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.nnunet_plugin.folds import splits_file
from nnunet_fedmepd.runtime.local import LocalRun, participants
from nnunet_fedmepd.runtime.owned_results import claim_results
from nnunet_fedmepd.runtime.preparation import Prepared, models_folder, prepare
from nnunet_fedmepd.runtime.profile_table import show_profile
from nnunet_fedmepd.runtime.progress import RunProgress, logging_to
from nnunet_fedmepd.runtime.run_folder import RunFolder, flat_differences

LOG = logging.getLogger(__name__)
_NAMED = 5  # cases in a warning


def run_federation(
    federation: Federation, folder: Path, console: Console, overwrite: bool = False, profiles: bool = False
) -> None:
    """Run a federation to its end, with progress on the console; an interrupted run goes on where it was.

    Args:
        federation: whose sites `fedmepd plan` planned and preprocessed.
        folder: of the run.
        console: for progress and log.
        overwrite: replace models of other trainings in nnU-Net's results folders.
        profiles: measure where the time goes, and show it at the end.

    Raises:
        ConfigurationError: plans or data are missing or do not fit together, nnUNet_results is not set, or environment
            variables would change the training.
        RunError: another process runs here, the folder holds another run, or models would be overwritten.
        StateFileError: a state is damaged, or cannot be saved.
    """
    _refuse_overrides()
    models_folder()  # told before there is a run that could not write its models
    prepared, run_folder = prepare(federation), RunFolder(folder)
    with run_folder.locked(), logging_to(folder / "federation.log", console):
        run_id = run_folder.open(identity(prepared), _changes)
        _warn_of_cases_left_out(prepared)
        own = [prepared.sites[p.name].dataset for p in participants(prepared.federation)]
        claim_results(prepared.federation, own, run_id, overwrite)
        n_turns = len(participants(prepared.federation))
        steps = federation.epochs_per_round * prepared.settings.num_iterations_per_epoch
        progress = RunProgress(console, federation.rounds, n_turns, steps)
        with progress.bar:
            LocalRun(prepared, run_id, run_folder, progress, profiles).run()
        if profiles:
            show_profile(folder / "profile", console)


def is_finished(federation: Federation, folder: Path) -> bool:
    """Return whether a run of this federation has ended there.

    Raises:
        RunError: the folder holds another run that has ended.
    """
    run_folder = RunFolder(folder)
    if not (folder / "status.json").is_file() or run_folder.status()["state"] != "finished":
        return False
    run_folder.open(identity(prepare(federation)), _changes)
    return True


def _refuse_overrides() -> None:
    if variables := overriding_variables():
        raise ConfigurationError(
            f"{', '.join(variables)}: these environment variables are for single trainings. In a federation they would "
            "change sites unseen, and a resumed run might differ; unset them and write the settings under [training]."
        )


def identity(prepared: Prepared) -> dict[str, Any]:
    """Return what the result of a run depends on; a run that is resumed must find it unchanged."""
    file = prepared.federation.model_dump(mode="json")
    for name in ("devices", "workers", "share_devices"):
        del file["run"][name]
    # What follows from the file may change from one version to the next: a run does not go on with other values.
    personalization = asdict(prepared.federation.personalization)
    known = {"federation": file, "personalization": personalization, "plans": dict(prepared.plan_digests)}
    # Over a network the sites' cases stay theirs.
    return {**known, "data": _data_digests(prepared)} if prepared.folds else known


def _data_digests(prepared: Prepared) -> dict[str, dict[str, str]]:
    """Return site -> SHA-256 of the cases of its fold, in their order, and of its dataset.json."""
    return {
        site: {
            "fold": fold.digest(),
            "dataset.json": hashlib.sha256(prepared.sites[site].dataset_json.read_bytes()).hexdigest(),
        }
        for site, fold in prepared.folds.items()
    }


def _changes(known: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return what changed; a run begun by a version that did not write down its data is not held to them."""
    return flat_differences(known, {key: value for key, value in found.items() if key in known or key != "data"})


def _warn_of_cases_left_out(prepared: Prepared) -> None:
    for site, fold in prepared.folds.items():
        if not fold.left_out:
            continue
        n_cases = len({*fold.train, *fold.val, *fold.left_out})
        more = f" and {len(fold.left_out) - _NAMED} more" if len(fold.left_out) > _NAMED else ""
        LOG.warning(
            "site %s: %d of %d preprocessed cases are in neither part of fold %s of %s, and not used: %s%s. Add them "
            "to the file if they were forgotten",
            *(site, len(fold.left_out), n_cases, prepared.federation.run.fold),
            *(splits_file(prepared.sites[site].plans.parent), ", ".join(fold.left_out[:_NAMED]), more),
        )
