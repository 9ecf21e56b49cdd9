"""A deployment on Flower, with TLS and proxies, plans and trains as the embedded runtime does, to the bit."""

from __future__ import annotations

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from tests.deployment.fault_table import FaultTable
from tests.deployment.real import RealDeployment
from tests.deployment.undisturbed import planned_and_undisturbed
from tests.runtime.small_federation import alike, final_weights, small_federation

pytestmark = pytest.mark.deployment


def test_a_deployment_plans_and_trains_as_the_embedded_runtime_does(datasets, tmp_path, request):
    federation = small_federation(rounds=3)
    embedded = planned_and_undisturbed(federation, datasets, tmp_path / "embedded")
    with RealDeployment(tmp_path / "deployment", federation, datasets) as real:
        real.start()
        real.wait(lambda: all(terminal.poll() is not None for terminal in real.terminals.values()))
        assert {terminal.returncode for terminal in real.terminals.values()} == {0}
    assert real.is_finished()
    assert alike(embedded, final_weights(federation))
    FaultTable.of(request.config).add("none", "planning and 3 rounds: same weights as embedded, to the bit")
