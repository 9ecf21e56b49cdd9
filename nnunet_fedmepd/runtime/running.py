"""Runs a federation file in a folder, or goes on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.runtime.local import LocalRun, participants
from nnunet_fedmepd.runtime.preparation import Prepared, prepare
from nnunet_fedmepd.runtime.progress import RunProgress, logging_to
from nnunet_fedmepd.runtime.run_folder import RunFolder, flat_differences


def run_federation(federation: Federation, folder: Path, console: Console) -> None:
    """Run a federation to its end, with progress on the console; an interrupted run goes on where it was.

    Args:
        federation: whose sites `fedmepd plan` planned and preprocessed.
        folder: of the run.
        console: for progress and log.

    Raises:
        ConfigurationError: plans or data are missing or do not fit together.
        RunError: another process runs here, or the folder holds another run.
        StateFileError: a state is damaged, or cannot be saved.
    """
    prepared, run_folder = prepare(federation), RunFolder(folder)
    with run_folder.locked(), logging_to(folder / "federation.log", console):
        run_id = run_folder.open(identity(prepared), flat_differences)
        steps = prepared.federation.training_settings(TrainingSettings()).num_iterations_per_epoch
        n_turns = len(participants(prepared.federation))
        progress = RunProgress(console, federation.rounds, n_turns, steps * federation.epochs_per_round)
        with progress.bar:
            LocalRun(prepared, run_id, run_folder, progress).run()


def identity(prepared: Prepared) -> dict[str, Any]:
    """Return what the result of a run depends on; a run that is resumed must find it unchanged."""
    file = prepared.federation.model_dump(mode="json")
    for name in ("devices", "workers", "share_devices"):
        del file["run"][name]
    return {"federation": file, "plans": dict(prepared.plan_digests)}
