"""nnU-Net's Weights & Biases logger in a federation: sites share a process, not a run."""

from __future__ import annotations

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.runtime.run_folder import RunFolder
from tests.runtime.small_federation import results_folder, run, small_federation


def recorded_runs(federation: Federation) -> dict[str, set[str]]:
    """Return site -> ids of the Weights & Biases runs in its results folder."""
    return {
        site.name: {
            file.stem.removeprefix("run-")
            for file in (results_folder(site.name, site.dataset) / "fold_all" / "wandb").glob("*/run-*.wandb")
        }
        for site in federation.site
    }


def test_every_site_has_a_run_of_its_own_and_a_resumed_federation_goes_on_with_it(datasets, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setenv("nnUNet_wandb_mode", "offline")
    federation = small_federation()
    run(federation, tmp_path / "run")
    first = recorded_runs(federation)
    assert len(set.union(*first.values())) == 3
    assert all(len(runs) == 1 for runs in first.values())
    for party in (RunFolder(tmp_path / "run").coordinator, *(RunFolder(tmp_path / "run").site(n) for n in first)):
        party.file(2).unlink()
    run(federation, tmp_path / "run")
    assert recorded_runs(federation) == first
