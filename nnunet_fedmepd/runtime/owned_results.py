"""Which run the models in nnU-Net's results folders are from, and whether it has finished them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.paths import nnUNet_results

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.federation.storage import write_atomically
from nnunet_fedmepd.nnunet_plugin.planner import plans_name_of
from nnunet_fedmepd.runtime.run_folder import RunError, read_json

# In a fold's results folder: which run its models are from.
OWNER = "federated_run.json"


def results_folder(dataset: str, federation: Federation) -> Path:
    """Return nnU-Net's results folder of a site's fold."""
    planning = federation.planning
    training = f"FedMEPDTrainer__{plans_name_of(planning.planner)}__{planning.configuration}"
    return Path(str(nnUNet_results)) / dataset / training / f"fold_{federation.run.fold}"


def claim_results(federation: Federation, datasets: Sequence[str], run_id: str, overwrite: bool) -> None:
    """Mark nnU-Net's results folders of datasets as this run's.

    Raises:
        RunError: some hold models of another training, and `overwrite` is false; all are listed.
    """
    folders = [results_folder(dataset, federation) for dataset in datasets]
    foreign = [folder for folder in folders if _is_foreign(folder, run_id)]
    if foreign and not overwrite:
        raise RunError(
            "These folders hold models of another training, which this run would replace:\n  "
            + "\n  ".join(map(str, foreign))
            + "\nPass --overwrite to replace them, or set nnUNet_results to another folder."
        )
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
    return not is_owned(folder, run_id) and any(folder.glob("checkpoint_*.pth"))
