"""A disk that takes no more, at a site and at the coordinator: a clear error, the last good state kept, and on it goes.

A limit on the size of files stands for the full disk: the write of a state fails half-way, with the system's own error.
"""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path

import pytest

from nnunet_fedmepd.deployment.coordinator_service import coordinate, why_stopped
from nnunet_fedmepd.federation.storage import StateFileError
from nnunet_fedmepd.runtime.run_folder import RunFolder
from tests.deployment.fault_table import SAME, FaultTable, repeated
from tests.deployment.small_kits import coordinator_kit, processes, site_kits
from tests.deployment.spool_channel import SpoolChannel
from tests.deployment.test_equality import paths
from tests.runtime.small_federation import alike, final_weights, run, small_federation

pytestmark = [pytest.mark.deployment, repeated()]


def limit_files(process: int, limit: int) -> None:
    """Let no file of a process grow beyond a limit."""
    resource.prlimit(process, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(datasets, tmp_path, request, repeat):
    federation = small_federation(rounds=2, run={"minimum_sites": 2})
    expected = run(federation, tmp_path / "embedded")
    for folder in datasets.results.iterdir():
        folder.rename(tmp_path / folder.name)
    kits = site_kits(tmp_path / "sites", federation, paths(datasets))
    kit = coordinator_kit(tmp_path / "coordinator", federation, plan=False, wait_limit_minutes=10.0)
    channel = SpoolChannel({site: own.spool_folder for site, own in kits.items()})
    # Whatever else they write fits, as it is smaller: nnU-Net's checkpoints here, hand-overs without anchors there.
    site, coordinator = (state_size(tmp_path / "embedded" / party) for party in ("sites/a", "coordinator"))
    with processes(kits) as running:
        limit_files(running["a"].pid, site - 1)
        log = kits["a"].logs / "site.log"

        def make_room() -> None:
            while not (log.is_file() and "cannot be written: File too large" in log.read_text()):
                time.sleep(0.2)
            limit_files(running["a"].pid, resource.RLIM_INFINITY)

        room = threading.Thread(target=make_room)
        room.start()
        limit_files(0, coordinator - 1)
        try:
            with pytest.raises(StateFileError, match=r"round_00001.state .* cannot be written: File too large"):
                coordinate(kit, channel)
        finally:
            limit_files(0, resource.RLIM_INFINITY)
        room.join()
        assert "File too large" in (why_stopped(RunFolder(kit.run_folder)) or "")
        journal = (kit.run_folder / "federation.log").read_text()
        assert "waits for a: the site failed with a StateFileError: what went wrong is in the site's own log" in journal
        FaultTable.of(request.config).add("disk full at a site", "told by kind, waited for, goes on with room")
        coordinate(kit, channel)
    assert alike(expected, final_weights(federation))
    FaultTable.of(request.config).add("disk full at the coordinator", f"clear error, goes on at the same round; {SAME}")


def state_size(folder: Path) -> int:
    """Return the bytes of a party's state after the first round."""
    return (folder / "round_00001.state").stat().st_size
