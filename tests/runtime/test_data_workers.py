"""nnU-Net's data workers: there while a site trains, and only then."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import time

import psutil
import pytest

from nnunet_fedmepd.runtime.local import LocalRun, NoObserver
from nnunet_fedmepd.runtime.preparation import prepare
from nnunet_fedmepd.runtime.run_folder import RunFolder, flat_differences
from nnunet_fedmepd.runtime.running import identity
from nnunet_fedmepd.runtime.workers import WorkerSettings, start_workers
from tests.processes import finding_tests, is_there
from tests.runtime.small_federation import small_federation


def test_a_site_that_waits_for_its_turn_keeps_no_data_workers(datasets, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    waiting, training = [], []

    class Watched:
        def __init__(self, settings: WorkerSettings) -> None:
            self.workers = start_workers(settings)
            self.finish, self.close = self.workers.finish, self.workers.close

        def take_turns(self, round_number, hand_overs, advance):
            def step_ends(site):
                training.append(len(multiprocessing.active_children()))
                advance(site)

            for result in self.workers.take_turns(round_number, hand_overs, step_ends):
                waiting.append(len(multiprocessing.active_children()))
                yield result

    prepared, folder = prepare(small_federation(2)), RunFolder(tmp_path)
    run_id = folder.open(identity(prepared), flat_differences)
    LocalRun(prepared, run_id, folder, NoObserver(), start=Watched).run()
    assert waiting == [0] * 6, "three sites, two rounds"
    assert set(training) <= {2, 3}, "two that draw training patches, one for validation once it is needed"


TRAINS = """
import sys
from pathlib import Path
from tests.runtime.small_federation import run, small_federation
endless = {"num_iterations_per_epoch": 1_000_000}
run(small_federation(run={"workers": int(sys.argv[1])}, training=endless), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("n_workers", [1, 2])
def test_data_workers_end_with_a_training_that_is_killed(datasets, tmp_path, n_workers):
    environment = {**os.environ, **finding_tests(), "nnUNet_n_proc_DA": "2"}
    command = [sys.executable, "-c", TRAINS, str(n_workers), tmp_path / "run"]
    with subprocess.Popen(command, env=environment) as training:
        try:
            forked = _first_forks(training)
        finally:
            training.kill()
    _expect_their_end(forked, 30)


def test_worker_processes_end_with_a_run_that_is_killed_while_they_start(datasets, tmp_path):
    command = [sys.executable, "-c", TRAINS, "2", tmp_path / "run"]
    with subprocess.Popen(command, env={**os.environ, **finding_tests()}) as run:
        try:
            spawned = _first_spawned(run)
        finally:
            run.kill()
    _expect_their_end(spawned, 120)  # they import everything first


def _expect_their_end(processes: set[int], seconds: float) -> None:
    until = time.monotonic() + seconds
    while any(is_there(process) for process in processes):
        assert time.monotonic() < until, "they wait on, for nobody"
        time.sleep(0.1)


def _first_spawned(run: subprocess.Popen) -> set[int]:
    until = time.monotonic() + 600
    while time.monotonic() < until:
        assert run.poll() is None, "it has ended"
        spawned = set()
        for child in psutil.Process(run.pid).children():
            with contextlib.suppress(psutil.Error):  # it has ended
                if any("spawn_main" in word for word in child.cmdline()):
                    spawned.add(child.pid)
        if spawned:
            return spawned
        time.sleep(0.01)
    raise AssertionError("no worker processes were seen")


def _first_forks(training: subprocess.Popen) -> set[int]:
    until, forks = time.monotonic() + 600, set()
    while len(forks) < 2:
        assert training.poll() is None, "it has ended"
        assert time.monotonic() < until, "no data workers were seen"
        forks = _forks(psutil.Process(training.pid))
    return forks


def _forks(process: psutil.Process) -> set[int]:
    """Return which descendants of a process have the command line of the process that started them, as forks do."""
    forks = set()
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error, AttributeError):  # it has ended
            if child.cmdline() == child.parent().cmdline():
                forks.add(child.pid)
    return forks
