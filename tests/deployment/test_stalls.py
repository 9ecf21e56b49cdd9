"""What stands still for a while, and comes back: a machine that is suspended, a database that is busy."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from tests.deployment.fault_table import SAME, FaultTable, repeated
from tests.deployment.real import RealDeployment
from tests.deployment.undisturbed import undisturbed
from tests.runtime.small_federation import alike, final_weights, small_federation

pytestmark = [pytest.mark.deployment, repeated()]
TRAINING = {"num_iterations_per_epoch": 8}
SHORT_SECONDS = 20  # less than a site keeps its turn, and than it takes for an app to be taken for gone
SECONDS = 75  # the engine takes a node for gone after 30, an app after 60


@contextmanager
def busy_database(real):
    """Keep the superlink from its database in the block: it answers 500 to everybody."""
    with closing(sqlite3.connect(real.kit("coordinator") / "flower.db", isolation_level=None, timeout=60)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield
        database.execute("ROLLBACK")


def test_what_stands_still_for_a_while_goes_on_by_itself(datasets, tmp_path, request, repeat):
    federation, table = small_federation(rounds=5, training=TRAINING), FaultTable.of(request.config)
    expected = undisturbed(federation, datasets, tmp_path / "embedded")
    with RealDeployment(tmp_path / "deployment", federation, datasets, plan=False) as real:
        real.start()
        real.wait(lambda: real.is_training("b", 2))
        with busy_database(real):
            time.sleep(SHORT_SECONDS)

        real.wait(lambda: real.is_training("a", 3))
        with real.standing_still("lead"):
            with real.standing_still("a"):
                time.sleep(SECONDS)
                assert "a" not in real.lines(3)
            real.wait(lambda: "a" in real.lines(3))
            time.sleep(SHORT_SECONDS)  # it would be the lead's turn
            assert "lead" not in real.lines(3)
        real.wait(lambda: real.is_training("b", 4))
        assert "app ended" not in real.printed()["coordinator"]

        with busy_database(real):
            time.sleep(SECONDS)
        assert not real.lines(5)

        real.wait(lambda: real.is_training("a", 5))
        with real.standing_still("coordinator"):
            time.sleep(SECONDS)
        real.wait(real.is_finished)
    for site in ("lead", "a", "b"):
        assert [real.trained(site, number) for number in range(1, 6)] == [1] * 5
    assert not [line for line in real.run.journal() if "missed" in line or "refused" in line]
    assert alike(expected, final_weights(federation))
    table.add(f"the superlink's database busy for {SHORT_SECONDS} s", f"the coordinator's app goes on; {SAME}")
    table.add(f"the superlink's database busy for {SECONDS} s", f"recovers by itself; {SAME}")
    for whose in ("the coordinator's machine", "a site's machine in its turn, another's before it,"):
        table.add(f"{whose} suspended for {SECONDS} s or more", f"goes on where it was; {SAME}")
