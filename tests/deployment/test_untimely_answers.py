"""A site that answers twice, late, for an old round and for another run: each is refused, and the rounds are unharmed.

The site's node speaks the engine's protocol itself, with the site's own keys: it sends what none of our nodes would.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from nnunet_fedmepd.deployment.kit import load_site_kit
from nnunet_fedmepd.deployment.processes import Processes, Program
from nnunet_fedmepd.deployment.starting import SERVICE, site_programs
from nnunet_fedmepd.runtime.running import run_federation
from tests.conftest import NnunetPaths
from tests.deployment.fault_table import FaultTable, repeated
from tests.deployment.hostile_node import LATE, OLD_ROUND, OTHER_RUN, ROUNDS, TWICE
from tests.deployment.real import RealDeployment
from tests.processes import finding_tests
from tests.runtime.small_federation import CONSOLE, UNROUNDED, checkpoint, small_federation

pytestmark = [pytest.mark.deployment, repeated()]
OTHERS = {"lead": 500, "b": 502}
TURN_LIMIT_MINUTES = 1.5
NAMES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
Weights = Mapping[str, Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Ended:
    """What is there when the federation has ended."""

    trained: list[Mapping[str, Any]]
    refused: list[Mapping[str, Any]]
    missed: list[Mapping[str, Any]]
    superlink_log: str
    told: list[str]
    weights: Weights
    expected: Weights


@pytest.fixture(scope="module")
def ended(planned_datasets: Path, tmp_path_factory: pytest.TempPathFactory, repeat: int) -> Ended:
    folder = tmp_path_factory.mktemp("untimely")
    paths = NnunetPaths(*(folder / name for name in NAMES))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("nnUNet_n_proc_DA", "0")
        for path in (paths.raw, paths.preprocessed):
            shutil.copytree(planned_datasets / path.name, path)
        for name in NAMES:
            patched.setenv(name, str(folder / name))
        paths.results.mkdir()
        return _run(folder, paths)


def _run(folder: Path, paths: NnunetPaths) -> Ended:
    away = {"a": {"absent_rounds": [LATE, OLD_ROUND, OTHER_RUN]}}
    run_federation(small_federation(rounds=ROUNDS, method=UNROUNDED, sites=away), folder / "embedded", CONSOLE)
    expected = _weights()
    shutil.rmtree(paths.results)
    paths.results.mkdir()
    federation = small_federation(rounds=ROUNDS, method=UNROUNDED)
    limit = {"turn_limit_minutes": TURN_LIMIT_MINUTES}
    with RealDeployment(folder / "deployment", federation, paths, plan=False, **limit) as real:
        kit, ending = load_site_kit(real.kit("a")), Event()
        own = Program(SERVICE, [sys.executable, "-m", "nnunet_fedmepd.deployment.site_service", str(kit.folder)])
        service, sidecar, node, _ = site_programs(kit, own)
        command = [sys.executable, "-m", "tests.deployment.hostile_node", str(kit.folder)]
        hostile = Program("hostile_node", command, {**node.variables, **finding_tests()})
        with Processes([service, sidecar, hostile], kit.folder, print).running() as processes:
            watch = Thread(target=_watch, args=(processes, ending))
            watch.start()
            try:
                real.start("coordinator", *OTHERS)
                real.wait(real.is_finished)
            finally:
                ending.set()
                watch.join()
        journal = [line for line in real.run.journal() if line["site"] == "a"]
        return Ended(
            [line for line in journal if "train_loss" in line],
            [line for line in journal if "refused" in line],
            [line for line in journal if "missed" in line],
            (real.kit("coordinator") / "logs" / "superlink.log").read_text(),
            (kit.logs / "hostile_node.log").read_text().splitlines(),
            _weights(),
            expected,
        )


def _weights() -> Weights:
    return {site: checkpoint(site, dataset)["network_weights"] for site, dataset in OTHERS.items()}


def _watch(processes: Processes, ending: Event) -> None:
    while not ending.wait(1.0):
        processes.watch()


def test_the_others_are_where_they_would_be_without_its_untimely_answers(ended: Ended) -> None:
    for site, expected in ended.expected.items():
        assert all(torch.equal(ended.weights[site][name], expected[name]) for name in expected)


def test_a_second_answer_is_not_taken(ended: Ended, request: pytest.FixtureRequest) -> None:
    assert TWICE in [line["round"] for line in ended.trained]
    assert "again: 0 pieces are taken" in ended.told
    assert "Failed to store Message reply" in ended.superlink_log
    FaultTable.of(request.config).add("a site answers twice", "the first answer counts, the second is not taken")


def test_a_late_answer_is_not_taken(ended: Ended, request: pytest.FixtureRequest) -> None:
    seconds = f"{60 * TURN_LIMIT_MINUTES:.0f}"
    assert [(line["round"], line["missed"]) for line in ended.missed] == [(LATE, f"no answer within {seconds} s")]
    assert "late: 0 pieces are taken" in ended.told
    assert "Message TTL has expired" in ended.superlink_log
    FaultTable.of(request.config).add("a site answers late", "the round goes on without it, by name; not taken")


def test_an_answer_of_an_old_round_is_refused_by_name(ended: Ended, request: pytest.FixtureRequest) -> None:
    refused = {line["round"]: line["refused"] for line in ended.refused}
    assert "answers another request, of an earlier round or another run" in refused[OLD_ROUND]
    assert "to an old round: 0 pieces are taken" in ended.told
    FaultTable.of(request.config).add("a site answers with what it answered in an old round", "refused by name")


def test_an_answer_of_another_run_is_refused_by_name(ended: Ended, request: pytest.FixtureRequest) -> None:
    refused = {line["round"]: line["refused"] for line in ended.refused}
    assert "it belongs to run '000" in refused[OTHER_RUN]
    FaultTable.of(request.config).add("a site answers for another run", "refused by name")
