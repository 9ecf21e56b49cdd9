"""`kill -9` at any moment: the same command goes on, and the weights are those of an undisturbed run, to the bit."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import time

from tests.runtime.small_federation import alike, final_weights, run, small_federation

N_KILLS = 20


def test_killed_at_20_random_moments_a_run_ends_with_the_weights_of_an_undisturbed_one(datasets, tmp_path):
    federation = small_federation(rounds=3)
    started = time.monotonic()
    undisturbed = run(federation, tmp_path / "undisturbed")
    duration, draw, kills, ended = time.monotonic() - started, random.Random(5), 0, 0
    # A forked child has everything imported: it starts with the run, so that kills fall everywhere in it.
    fork = multiprocessing.get_context("fork")
    folder = tmp_path / "disturbed"
    while kills < N_KILLS or ended == 0:
        child = fork.Process(target=run, args=(federation, folder))
        child.start()
        child.join(draw.uniform(0.05, 0.7) * duration if kills < N_KILLS else None)
        if child.is_alive():
            child.kill()
            child.join()
            kills += 1
            continue
        assert child.exitcode == 0
        assert alike(undisturbed, final_weights(federation))
        ended += 1
        shutil.rmtree(folder)
        shutil.rmtree(datasets.results)
