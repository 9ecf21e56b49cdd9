"""A site executes the installed package only: an app that the coordinator sends instead is not executed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from nnunet_fedmepd.deployment.flower.programs import connector, supernode
from nnunet_fedmepd.deployment.kit import load_site_kit
from nnunet_fedmepd.deployment.processes import Processes, Program
from nnunet_fedmepd.deployment.starting import write_engine_secret
from tests.deployment import made_kits
from tests.deployment.loopback import Loopback, sidecar, wait_until, write_foreign_app
from tests.deployment.security_table import SecurityTable

pytestmark = pytest.mark.deployment
SECONDS = 600  # that a busy machine has for each step


def as_flower_would(program: Program) -> Program:
    """Return the node's program without what keeps it from executing what comes."""
    command = list(program.command)
    assert command[-4::2] == ["--isolation", "--superexec-auth-secret-file"]
    return dataclasses.replace(program, command=command[:-4])


def test_a_site_does_not_execute_what_is_sent(
    loopback: Loopback, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    marks = tmp_path / "marks"
    app = write_foreign_app(tmp_path / "app", marks)
    for name in ("county", "university"):
        made_kits.write_site_toml(loopback.site(name), tmp_path, via=f"127.0.0.1:{loopback.proxy()}")
    with contextlib.ExitStack() as running:
        processes = running.enter_context(_node(loopback.site("county"), lambda node: node))
        loopback.control().start(app)
        assert wait_until((marks / "server").exists, SECONDS, processes.watch)
        assert wait_until((marks / "refused").exists, SECONDS, processes.watch)
        assert (marks / "refused").read_text() == "the message holds no payload"
        assert {mark.name for mark in marks.iterdir()} == {"server", "refused"}
        processes = running.enter_context(_node(loopback.site("university"), as_flower_would))
        assert wait_until((marks / "client").exists, SECONDS, processes.watch)
    stopped_by = {"a site executes the installed package only": "refused, not executed"}
    SecurityTable.of(request.config).add("the coordinator sends code to a site", stopped_by, "it runs at the site")


@contextlib.contextmanager
def _node(site: Path, change: Callable[[Program], Program]) -> Iterator[Processes]:
    """Run a site's processes but for its service."""
    kit = load_site_kit(site)
    with sidecar(kit) as port:
        kit = dataclasses.replace(kit, sidecar_port=port)
        write_engine_secret(kit)
        with Processes([change(supernode(kit)), connector(kit)], kit.folder, print).running() as processes:
            yield processes
