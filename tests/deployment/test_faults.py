"""Processes that are killed, and sites that are away: the run ends, and nothing is lost.

FEDMEPD_FAULT_REPEATS says how often each is tried.
"""

from __future__ import annotations

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from tests.deployment.fault_table import SAME, FaultTable, repeated
from tests.deployment.halting_coordinator import AGGREGATING, HALTED, SAVING
from tests.deployment.real import RealDeployment
from tests.deployment.undisturbed import undisturbed
from tests.processes import is_there
from tests.runtime.small_federation import alike, final_weights, small_federation

pytestmark = [pytest.mark.deployment, repeated()]
TRAINING = {"num_iterations_per_epoch": 8}


def test_processes_killed_one_after_the_other_change_nothing(datasets, tmp_path, request, repeat):
    federation, table = small_federation(rounds=6, training=TRAINING), FaultTable.of(request.config)
    expected = undisturbed(federation, datasets, tmp_path / "embedded")
    with RealDeployment(tmp_path / "deployment", federation, datasets, plan=False) as real:
        start_halting(real, AGGREGATING, 1)
        real.start("lead", "a", "b")

        real.wait((real.kit("coordinator") / HALTED).exists)
        assert {"a", "b"} <= set(real.lines(1))
        assert real.run.coordinator.newest() is None
        app = real.status()["process"]
        real.kill_all("coordinator")
        real.wait(lambda: not is_there(app))

        start_halting(real, SAVING, 2)
        real.wait((real.kit("coordinator") / HALTED).exists)
        assert set(real.lines(2)) == {"lead", "a", "b"}
        assert real.run.coordinator.newest() == 1
        assert list(real.run.coordinator.folder.glob("round_00002.state.*.partial"))
        real.kill_all("coordinator")

        real.start("coordinator")
        real.wait(lambda: real.is_training("a", 3))
        real.kill_all("coordinator")
        assert "a" not in real.lines(3)
        real.wait(lambda: real.trained("a", 3))
        real.start("coordinator")

        real.wait(lambda: real.is_training("a", 4))
        real.kill("a", "service")
        assert not real.trained("a", 4)

        real.wait(lambda: real.is_training("a", 5))
        real.kill("a", "supernode")
        assert "a" not in real.lines(5)

        real.wait(lambda: real.is_training("b", 6))
        real.kill("b", "connector")
        assert "b" not in real.lines(6)

        real.wait(real.is_finished)
        real.wait(lambda: all(terminal.poll() is not None for terminal in real.terminals.values()), 180)
    assert {name: terminal.returncode for name, terminal in real.terminals.items()} == dict.fromkeys(real.terminals, 0)
    assert not [line for line in real.run.journal() if "missed" in line or "refused" in line]
    for site in ("lead", "a", "b"):
        for number in range(1, 7):
            assert real.trained(site, number) == 1
    assert alike(expected, final_weights(federation))
    for what in ("aggregates", "saves", "waits"):
        table.add(f"coordinator killed while it {what}", f"goes on by the same command, no turn is taken again; {SAME}")
    for what in ("its process killed in training", "its node killed", "its connection killed"):
        table.add(f"a site: {what}", f"it keeps its turn; {SAME}")


def start_halting(real, place, number):
    """Start the coordinator such that it halts at a place in a round."""
    (real.kit("coordinator") / HALTED).unlink(missing_ok=True)
    module = "tests.deployment.halting_coordinator"
    real.run_module("coordinator", module, str(real.kit("coordinator")), place, str(number))


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
    assert "app ended" not in real.printed()["coordinator"]
    FaultTable.of(request.config).add("whole site down for 3 rounds, then started", "rejoined the running federation")


def test_with_fewer_sites_than_the_minimum_the_coordinator_says_whom_it_waits_for_and_can_go_on(
    datasets, tmp_path, request, repeat
):
    federation = small_federation(rounds=2, training=TRAINING, run={"minimum_sites": 2})
    expected = undisturbed(federation, datasets, tmp_path / "embedded")
    with RealDeployment(tmp_path / "deployment", federation, datasets, plan=False, wait_limit_minutes=4.0) as real:
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
