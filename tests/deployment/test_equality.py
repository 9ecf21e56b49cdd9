"""Coordinator and sites as separate processes give the embedded runtime's weights, to the bit."""

from __future__ import annotations

from nnunet_fedmepd.deployment.coordinator_service import coordinate
from nnunet_fedmepd.runtime.run_folder import RunFolder
from tests.deployment.small_kits import coordinator_kit, processes, site_kits
from tests.deployment.spool_channel import SpoolChannel
from tests.deployment.undisturbed import planned_and_undisturbed
from tests.runtime.small_federation import alike, final_weights, small_federation


def test_sites_as_processes_plan_and_train_as_the_embedded_runtime_does(datasets, tmp_path):
    federation = small_federation(rounds=3)
    embedded = planned_and_undisturbed(federation, datasets, tmp_path / "embedded")
    kits = site_kits(tmp_path / "sites", federation, paths(datasets))
    kit = coordinator_kit(tmp_path / "coordinator", federation)
    with processes(kits) as running:
        coordinate(kit, SpoolChannel({site: own.spool_folder for site, own in kits.items()}))
        assert [process.wait(120) for process in running.values()] == [0, 0, 0]
    assert RunFolder(kit.run_folder).status()["state"] == "finished"
    assert alike(embedded, final_weights(federation))
    ours, theirs = (RunFolder(folder).journal() for folder in (kit.run_folder, tmp_path / "embedded"))
    assert [line["round"] for line in ours] == [line["round"] for line in theirs]


def paths(datasets):
    return {folder.name: folder for folder in (datasets.raw, datasets.preprocessed, datasets.results)}
