"""A deployment on Flower, with TLS and proxies, plans and trains as the embedded runtime does, to the bit."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from nnunet_fedmepd.runtime.planning import plan_together
from tests.deployment.fault_table import FaultTable
from tests.deployment.real import RealDeployment
from tests.runtime.small_federation import CONSOLE, alike, final_weights, run, small_federation

pytestmark = pytest.mark.deployment


def test_a_deployment_plans_and_trains_as_the_embedded_runtime_does(datasets, tmp_path, request):
    federation = small_federation(rounds=3)
    shutil.rmtree(datasets.preprocessed)
    datasets.preprocessed.mkdir()
    plan_together(federation, CONSOLE)
    embedded = run(federation, tmp_path / "embedded")
    for folder in (datasets.preprocessed, datasets.results):
        shutil.rmtree(folder)
        folder.mkdir()
    with RealDeployment(tmp_path / "deployment", federation, datasets) as real:
        real.start()
        real.wait(lambda: all(terminal.poll() is not None for terminal in real.terminals.values()))
        assert {terminal.returncode for terminal in real.terminals.values()} == {0}
    assert real.is_finished()
    assert alike(embedded, final_weights(federation))
    FaultTable.of(request.config).add("none", "planning and 3 rounds: same weights as embedded, to the bit")
