"""Which run the models in nnU-Net's results folders are from, and whether it has finished them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.federation.storage import write_atomically
from nnunet_fedmepd.nnunet_plugin.model_plans import differences_between_models
from nnunet_fedmepd.nnunet_plugin.planner import plans_name_of
from nnunet_fedmepd.nnunet_plugin.run_plans import plans_for_run
from nnunet_fedmepd.nnunet_plugin.trainer import OWNER
from nnunet_fedmepd.runtime.run_folder import RunError, read_json

_CHECKPOINTS = "checkpoint_*.pth"


def results_folder(dataset: str, federation: Federation) -> Path:
    """Return nnU-Net's results folder of a site's fold."""
    planning = federation.planning
    training = f"FedMEPDTrainer__{plans_name_of(planning.planner)}__{planning.configuration}"
    return Path(str(nnUNet_results)) / dataset / training / f"fold_{federation.run.fold}"


def claim_results(federation: Federation, datasets: Sequence[str], run_id: str, overwrite: bool) -> None:
    """Mark nnU-Net's results folders of datasets as this run's.

    With `overwrite` models of another training are removed from them, and models of other folds, whose plans are
    replaced, count no longer as those of the run that they are from.

    Raises:
        RunError: some hold models of another training, or lie beside folds that were trained by other plans, and
            `overwrite` is false; all are listed.
    """
    folders = [results_folder(dataset, federation) for dataset in datasets]
    foreign = [folder for folder in folders if _is_foreign(folder, run_id)]
    unplanned = [fold for dataset in datasets for fold in _folds_by_other_plans(dataset, federation)]
    if (foreign or unplanned) and not overwrite:
        raise RunError(
            _listed("These folders hold models of another training, which this run would replace", foreign)
            + _listed(
                "These folders hold models of other folds, trained by other plans. nnU-Net keeps one plans.json for "
                "all folds: this run would replace it, and they could not be used any more",
                unplanned,
            )
            + "Pass --overwrite to give them up, or set nnUNet_results to another folder."
        )
    for checkpoint in [file for folder in foreign for file in folder.glob(_CHECKPOINTS)]:
        checkpoint.unlink()  # the run may not write all of them again, and would seem to have trained the others
    for fold in unplanned:
        (fold / OWNER).unlink(missing_ok=True)
    for folder in folders:
        if not is_owned(folder, run_id):
            _write_owner(folder, run_id, federation, finished=False)


def is_owned(folder: Path, run_id: str) -> bool:
    """Return whether a fold's results folder is marked as a run's."""
    return (folder / OWNER).is_file() and bool(read_json(folder / OWNER)["run_id"] == run_id)


def finish_results(folder: Path, run_id: str, federation: Federation) -> None:
    """Write down that a fold's results folder holds all that a run writes there."""
    _write_owner(folder, run_id, federation, finished=True)


def reopen_results(folder: Path, run_id: str, federation: Federation) -> None:
    """Write down that a run trains on, where it had written all: what is there will be that of an earlier round."""
    if are_finished(folder, run_id):
        _write_owner(folder, run_id, federation, finished=False)


def are_finished(folder: Path, run_id: str) -> bool:
    """Return whether a fold's results folder holds all that a run writes there, its final model above all."""
    is_complete = is_owned(folder, run_id) and read_json(folder / OWNER).get("finished", False)
    return bool(is_complete) and (folder / "checkpoint_final.pth").is_file()


def _write_owner(folder: Path, run_id: str, federation: Federation, finished: bool) -> None:
    owner = {"run_id": run_id, "federation": federation.name, "finished": finished}
    write_atomically(folder / OWNER, json.dumps(owner).encode())


def _is_foreign(folder: Path, run_id: str) -> bool:
    return not is_owned(folder, run_id) and any(folder.glob(_CHECKPOINTS))


def _folds_by_other_plans(dataset: str, federation: Federation) -> list[Path]:
    """Return the results folders of a dataset's other folds with models that this run's plans do not fit."""
    own, planning = results_folder(dataset, federation), federation.planning
    others = [fold for fold in sorted(own.parent.glob("fold_*")) if fold != own and any(fold.glob(_CHECKPOINTS))]
    shared = own.parent / "plans.json"
    if not others or not shared.is_file():
        return []
    planned = Path(str(nnUNet_preprocessed)) / dataset / f"{plans_name_of(planning.planner)}.json"
    found, new = read_json(shared), plans_for_run(read_json(planned), federation)
    return others if differences_between_models(found, new, planning.configuration) else []


def _listed(what: str, folders: Sequence[Path]) -> str:
    return "".join([f"{what}:\n", *(f"  {folder}\n" for folder in folders)]) if folders else ""
