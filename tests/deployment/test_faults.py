"""Processes that are killed, sites that are away, disks that are full: the run ends, and nothing is lost.

FEDMEPD_FAULT_REPEATS says how often each is tried.
"""

from __future__ import annotations

import os
import shutil

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from tests.deployment.fault_table import FaultTable
from tests.deployment.real import RealDeployment
from tests.runtime.small_federation import alike, final_weights, run, small_federation

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.parametrize("repeat", range(int(os.environ.get("FEDMEPD_FAULT_REPEATS", "1")))),
]
TRAINING = {"num_iterations_per_epoch": 8}
SAME = "same weights as undisturbed, to the bit"


def undisturbed(federation, datasets, folder):
    """Return the weights of the embedded runtime, and forget its models."""
    weights = run(federation, folder)
    shutil.rmtree(datasets.results)
    datasets.results.mkdir()
    return weights


def test_processes_killed_one_after_the_other_change_nothing(datasets, tmp_path, request, repeat):
    federation, table = small_federation(rounds=7, training=TRAINING), FaultTable.of(request.config)
    expected = undisturbed(federation, datasets, tmp_path / "embedded")
    outcomes = {}
    with RealDeployment(tmp_path / "deployment", federation, datasets, plan=False) as real:
        real.start()

        real.wait(lambda: real.is_training("a", 2))
        real.kill("a", "service")
        real.wait(lambda: real.is_training("b", 3) or real.is_training("a", 3))
        outcomes["site's process killed in training"] = outcome(real, "a", 2)

        real.wait(lambda: real.trained("a", 3))
        real.kill("a", "connector")
        real.wait(lambda: real.is_training("a", 4))
        outcomes["site's connection killed while it sends"] = outcome(real, "a", 3)

        real.kill_all("coordinator")
        real.wait(lambda: real.trained("a", 4))
        real.start("coordinator")
        real.wait(lambda: len(real.lines(4)) == 3)
        outcomes["coordinator killed while it waits"] = outcome(real, "a", 4)

        real.wait(lambda: {"a", "b"} <= set(real.lines(5)))
        real.kill_app()
        real.wait(lambda: len(real.lines(5)) == 3)
        outcomes["coordinator killed in aggregation"] = outcome(real, "a", 5)

        real.wait(lambda: len(real.lines(6)) == 3)
        real.kill_app()
        real.wait(lambda: len(real.lines(7)) == 3)
        outcomes["coordinator killed while it saves"] = outcome(real, "a", 6)

        real.wait(real.is_finished)
        real.wait(lambda: all(terminal.poll() is not None for terminal in real.terminals.values()), 180)
        assert {name: terminal.returncode for name, terminal in real.terminals.items()} == dict.fromkeys(
            real.terminals, 0
        )
        for number in (4, 5, 6):
            assert real.trained("a", number) >= 1
            first = real.lines(number)["a"]
            assert first["round"] == number
    missed = [line for line in real.run.journal() if "missed" in line]
    same = alike(expected, final_weights(federation))
    assert same or missed, "all sites took all turns, but the weights are others"
    for fault, how in outcomes.items():
        table.add(fault, f"{how}; {SAME}" if same else how)


def outcome(real, site, number):
    """Return what became of a site's turn; it must be back in the next round, if it missed this one."""
    if site in real.lines(number):
        return "the site kept its turn"
    assert site in real.lines(number, "missed")
    real.wait(lambda: site in real.lines(number + 1))
    return "the round went on without it, back in the next"


def test_a_site_that_is_down_for_rounds_rejoins_by_itself(datasets, tmp_path, request, repeat):
    federation = small_federation(rounds=9, training=TRAINING)
    with RealDeployment(tmp_path / "deployment", federation, datasets, plan=False) as real:
        real.start()
        real.wait(lambda: real.is_training("b", 2))
        real.kill_all("b")
        real.wait(lambda: "b" in real.lines(4, "missed"))
        real.start("b")
        real.wait(real.is_finished)
    rounds = [line["round"] for line in real.run.journal() if line["site"] == "b" and "train_loss" in line]
    assert rounds[0] == 1
    assert set(rounds) >= {9}
    assert {2, 3, 4}.isdisjoint(rounds)
    for number in range(1, 10):
        assert {"a", "lead"} <= set(real.lines(number))
    FaultTable.of(request.config).add("whole site down for 3 rounds, then started", "rejoined the running federation")


def test_with_fewer_sites_than_the_minimum_the_coordinator_says_whom_it_waits_for_and_can_go_on(
    datasets, tmp_path, request, repeat
):
    federation = small_federation(rounds=2, training=TRAINING, run={"minimum_sites": 2})
    expected = undisturbed(federation, datasets, tmp_path / "embedded")
    with RealDeployment(tmp_path / "deployment", federation, datasets, plan=False, wait_limit_minutes=2.0) as real:
        real.start()
        real.wait(lambda: real.is_training("a", 1))
        real.kill_all("a")
        coordinator = real.terminals["coordinator"]
        real.wait(lambda: coordinator.poll() is not None)
        assert coordinator.returncode == 2
        printed = real.printed()["coordinator"]
        assert "round 1 waits for a" in printed
        assert "at least 2 are needed. Missing: a." in printed
        real.start("a", "coordinator")
        real.wait(real.is_finished)
    assert alike(expected, final_weights(federation))
    FaultTable.of(request.config).add("fewer sites than the minimum", f"waited, named it, went on later; {SAME}")
