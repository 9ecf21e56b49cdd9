"""A network that is slow, or cut, and a site that is killed while it sends over it: the run recovers by itself."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from tests.deployment.fault_table import SAME, FaultTable, repeated
from tests.deployment.network import CENTRE, CENTRE_ADDRESS, HOSPITAL, a_network
from tests.deployment.real import RealDeployment
from tests.deployment.undisturbed import undisturbed
from tests.runtime.small_federation import UNROUNDED, alike, final_weights, small_federation

pytestmark = [pytest.mark.deployment, repeated()]
MEGABIT, SLOWEST = 1_000_000, 150_000
CUT_SECONDS = 60
TRAINING = {"num_iterations_per_epoch": 8}
BEGUN_BYTES, UPDATE_BYTES = 150_000, 700_000  # of an update that is not rounded


@pytest.fixture
def network():
    with a_network() as made:
        yield made


@pytest.fixture
def far_away(network, datasets, tmp_path):
    """Return what makes the deployment of a federation whose site `a` is at the other end of the network."""
    places = {"coordinator": CENTRE, "lead": CENTRE, "b": CENTRE, "a": HOSPITAL}
    before = {name: network.at(place) for name, place in places.items()}

    def make(federation):
        return RealDeployment(tmp_path / "deployment", federation, datasets, CENTRE_ADDRESS, before, plan=False)

    return make


def while_it_sends(real, network, number, happens):
    """Let something happen while the update of site `a` is on its way: a part of it, neither all nor nothing."""
    real.wait(lambda: real.trained("a", number))
    before = network.bytes_from(HOSPITAL)
    real.wait(lambda: network.bytes_from(HOSPITAL) - before > BEGUN_BYTES)
    happens()
    assert network.bytes_from(HOSPITAL) - before < UPDATE_BYTES
    assert "a" not in real.lines(number)


def test_a_slow_network_and_a_site_that_is_killed_while_it_sends(
    network, far_away, datasets, tmp_path, request, repeat
):
    federation, table = small_federation(rounds=4, training=TRAINING, method=UNROUNDED), FaultTable.of(request.config)
    expected = undisturbed(federation, datasets, tmp_path / "embedded")
    network.slow_down(MEGABIT)
    with far_away(federation) as real:
        real.start()
        while_it_sends(real, network, 2, lambda: real.kill("a", "supernode"))
        while_it_sends(real, network, 3, lambda: real.kill_all("a"))
        real.start("a")
        real.wait(lambda: real.trained("a", 4))
        network.slow_down(SLOWEST)  # a piece takes longer than the 30 s that Flower's node would give it
        real.wait(lambda: "a" in real.lines(4))
        network.slow_down(MEGABIT)
        real.wait(real.is_finished)
    assert [real.trained("a", number) for number in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert not [line for line in real.run.journal() if "missed" in line or "refused" in line]
    assert alike(expected, final_weights(federation))
    table.add("slow network, 1 Mbit/s each way, at last 0.15 Mbit/s", f"slower; {SAME}")
    table.add("a site: its node killed while it sends", f"it keeps its turn, and sends again; {SAME}")
    table.add("a site: all of it killed while it sends, then started", f"it keeps its turn, and sends again; {SAME}")


def test_a_network_that_is_cut_for_a_minute(network, far_away, datasets, tmp_path, request, repeat):
    federation, table = small_federation(rounds=4, training=TRAINING, method=UNROUNDED), FaultTable.of(request.config)
    expected = undisturbed(federation, datasets, tmp_path / "embedded")
    with far_away(federation) as real:
        real.start()
        real.wait(lambda: real.is_training("a", 2))
        network.cut()
        assert "a" not in real.lines(2)
        time.sleep(CUT_SECONDS)
        assert "a" not in real.lines(2)
        network.restore()

        real.wait(lambda: real.is_training("a", 3))
        network.slow_down(MEGABIT)
        while_it_sends(real, network, 3, network.cut)
        time.sleep(CUT_SECONDS)
        assert "a" not in real.lines(3)
        network.restore()
        network.speed_up()
        real.wait(real.is_finished)
    assert [real.trained("a", number) for number in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert not [line for line in real.run.journal() if "missed" in line or "refused" in line]
    assert alike(expected, final_weights(federation))
    for when in ("trains", "sends"):
        table.add(f"network cut for {CUT_SECONDS} s, both ways, while a site {when}", f"recovers by itself; {SAME}")
