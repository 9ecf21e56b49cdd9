"""nnU-Net's data workers: there while a site trains, and only then."""

from __future__ import annotations

import multiprocessing

from nnunet_fedmepd.runtime.local import LocalRun, NoObserver
from nnunet_fedmepd.runtime.preparation import prepare
from nnunet_fedmepd.runtime.run_folder import RunFolder, flat_differences
from nnunet_fedmepd.runtime.running import identity
from nnunet_fedmepd.runtime.workers import WorkerSettings, start_workers
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
