"""Answers that are late, of another run, damaged or made up are refused by name, and the round is unharmed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from nnunet_fedmepd.deployment.kit import load_site_kit
from nnunet_fedmepd.deployment.spool import Spool
from nnunet_fedmepd.runtime.running import run_federation
from tests.deployment.fault_table import FaultTable, repeated
from tests.deployment.hostile_service import BODIES, CLAIMED, REPLIES, ROUNDS
from tests.deployment.real import RealDeployment
from tests.deployment.small_kits import start_service
from tests.runtime.small_federation import CONSOLE, UNROUNDED, checkpoint, small_federation

pytestmark = [pytest.mark.deployment, repeated()]
OTHERS = {"lead": 500, "b": 502}


def test_what_a_hostile_site_answers_is_refused_by_name_and_harms_nobody(datasets, tmp_path, request, repeat):
    away = {"a": {"absent_rounds": list(range(1, ROUNDS + 1))}}
    run_federation(small_federation(rounds=ROUNDS, method=UNROUNDED, sites=away), tmp_path / "embedded", CONSOLE)
    expected = {site: checkpoint(site, dataset)["network_weights"] for site, dataset in OTHERS.items()}
    for folder in datasets.results.iterdir():
        folder.rename(tmp_path / folder.name)
    federation = small_federation(rounds=ROUNDS, method=UNROUNDED)
    with RealDeployment(tmp_path / "deployment", federation, datasets, plan=False) as real:
        hostile = start_service(load_site_kit(real.kit("a")), "tests.deployment.hostile_service")
        try:
            real.wait(Spool(real.kit("a") / "spool").is_served)  # before the kit's own process is
            real.start()
            real.wait(lambda: "a" in real.lines(min(REPLIES) - 1, "refused"))
            before = peak_memory(real.status()["process"])
            real.wait(lambda: real.status().get("round") == ROUNDS and "lead" in real.lines(ROUNDS))
            after = peak_memory(real.status()["process"])
            real.wait(real.is_finished)
        finally:
            hostile.kill()
            hostile.wait()
    for number, (what, _, reason) in {**BODIES, **REPLIES}.items():
        refused = real.lines(number, "refused")["a"]["refused"]
        assert re.search(reason, refused), (what, refused)
        assert {"lead", "b"} <= set(real.lines(number))
        FaultTable.of(request.config).add(f"a site answers with {what}", "refused by name, round unharmed")
    assert after - before < CLAIMED / 2
    for site, dataset in OTHERS.items():
        found = checkpoint(site, dataset)["network_weights"]
        assert all(torch.equal(found[name], expected[site][name]) for name in expected[site])


def peak_memory(process: int) -> int:
    """Return the most main memory that a process ever had, in bytes."""
    text = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", text)[1])
