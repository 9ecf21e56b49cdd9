"""What a site had before it was revoked, or before its keys were renewed, opens nothing any more.

As in `test_security`: every measure refuses an attack alone, all others left out, and without them it succeeds.
"""

from __future__ import annotations

import contextlib
import http
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from google.protobuf.message import Message

from nnunet_fedmepd.cli import main
from nnunet_fedmepd.deployment.checks import check_way
from nnunet_fedmepd.deployment.processes import id_file
from nnunet_fedmepd.errors import ConfigurationError
from tests.deployment import attacker as attacks
from tests.deployment import made_kits
from tests.deployment.attacker import Attacker
from tests.deployment.certificate_measure import CURRENT_CERTIFICATE
from tests.deployment.loopback import NODE_CALLS, OWN_KEY, REGISTERED_KEYS, Loopback, wait_until, write_foreign_app
from tests.deployment.security_table import SecurityTable

OK, UNAUTHORIZED, FORBIDDEN = http.HTTPStatus.OK, http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN

pytestmark = pytest.mark.deployment


@dataclass(frozen=True)
class Revoked:
    """A coordinator that has revoked a site, and that site with all that it had.

    Attributes:
        loopback: the coordinator's processes.
        nodes: whether the engine knows registered keys only -> id of the site's node.
        run_id: of a run.
    """

    loopback: Loopback
    nodes: dict[bool, int]
    run_id: int

    @property
    def site(self) -> Attacker:
        """The revoked site."""
        return attacks.site_attacker(self.loopback.site("county"), self.loopback.ca)


@pytest.fixture(scope="module")
def revoked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Revoked]:
    folder = tmp_path_factory.mktemp("revoked")
    kits = made_kits.make(folder)
    app = write_foreign_app(folder / "app", folder / "marks")
    with contextlib.closing(Loopback(kits)) as loopback:
        nodes = {knows: loopback.node("county", knows) for knows in (True, False)}
        run_id = loopback.control().start(app)
        assert main(["deploy", "revoke", str(kits / "coordinator"), "county"]) == 0
        loopback.keys = {site: loopback.kit.node_key(site).read_bytes() for site in loopback.keys}
        yield Revoked(loopback, nodes, run_id)
        (folder / "marks" / "end").touch()
        loopback.control().stop_all()


@dataclass(frozen=True)
class Attack:
    """Something that a revoked site tries.

    Attributes:
        call: makes the request, to an engine that knows registered keys only, or to one that takes any node.
        measures: each of which refuses it, all others left out.
    """

    call: Callable[[Revoked, bool], tuple[str, Message]]
    measures: tuple[str, ...]


ATTACKS = {
    "a revoked site joins": Attack(
        lambda revoked, knows: attacks.join(revoked.site), (CURRENT_CERTIFICATE, OWN_KEY, REGISTERED_KEYS)
    ),
    "a revoked site reads what is sent to it": Attack(
        lambda revoked, knows: attacks.read_messages(revoked.nodes[knows]),
        (CURRENT_CERTIFICATE, OWN_KEY, REGISTERED_KEYS),
    ),
    "a revoked site stops a run": Attack(
        lambda revoked, knows: attacks.stop(revoked.run_id), (CURRENT_CERTIFICATE, OWN_KEY, NODE_CALLS)
    ),
    "a revoked site registers a node": Attack(
        lambda revoked, knows: attacks.register(attacks.stranger(revoked.loopback.ca)),
        (CURRENT_CERTIFICATE, OWN_KEY, NODE_CALLS),
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_revoked_site_is_refused_by_every_measure_alone_and_not_without(
    revoked: Revoked, request: pytest.FixtureRequest, name: str
) -> None:
    attack, statuses = ATTACKS[name], {}
    for measure in attack.measures:
        statuses[measure] = _attempt(revoked, attack, {*attack.measures} - {measure})
        assert statuses[measure] != OK
    assert _attempt(revoked, attack, {*attack.measures}) == OK
    SecurityTable.of(request.config).add(name, statuses, "succeeds")


def _attempt(revoked: Revoked, attack: Attack, without: set[str]) -> int:
    call = attack.call(revoked, REGISTERED_KEYS not in without)
    return revoked.site.post(revoked.loopback.proxy(without), *call).status


def test_a_site_that_is_not_revoked_joins_as_before(revoked: Revoked) -> None:
    who = attacks.site_attacker(revoked.loopback.site("university"), revoked.loopback.ca)
    assert who.post(revoked.loopback.proxy(), *attacks.join(who)).status == OK


# ------------------------------------------------------------------------------------- a coordinator as users start it


@contextlib.contextmanager
def coordinator_up(kits: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the coordinator; no site comes, for whom it waits."""
    kit = made_kits.coordinator_kit(kits)
    with (kits / "coordinator.txt").open("wb") as output:
        command = [sys.executable, "-m", "nnunet_fedmepd", "deploy", "up", str(kit.folder)]
        terminal = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        is_up = wait_until(lambda: b"is up on" in (kits / "coordinator.txt").read_bytes(), 300)
        assert is_up, (kits / "coordinator.txt").read_text()
        assert wait_until(lambda: _is_open(kits), 60)
        yield terminal
    finally:
        terminal.terminate()
        terminal.wait(120)


def _is_open(kits: Path) -> bool:
    try:
        check_way(made_kits.site_kit(kits, "university"))
    except ConfigurationError:
        return False
    return True


def _nodes(kits: Path) -> dict[str, int]:
    """Return site -> id of its node in the engine."""
    return dict(json.loads(made_kits.coordinator_kit(kits).node_file.read_bytes()))


def _status(kits: Path, who: Attacker, node: int) -> int:
    """Return what the proxy answers to somebody who wants to read what is sent to a node."""
    return who.post(made_kits.coordinator_kit(kits).port, *attacks.read_messages(node)).status


def _engine_status(kits: Path, who: Attacker, node: int) -> int:
    """Return what the engine itself answers."""
    return who.post(made_kits.coordinator_kit(kits).superlink_port, *attacks.read_messages(node)).status


def _site(kits: Path, site: str) -> Attacker:
    return attacks.site_attacker(kits / "sites" / site, kits / "coordinator" / "ca.crt")


def test_a_coordinator_that_is_up_locks_a_site_out_at_once_and_runs_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kits = made_kits.make(tmp_path)
    county, university = _site(kits, "county"), _site(kits, "university")
    with coordinator_up(kits) as terminal:
        processes, nodes = id_file(kits / "coordinator").read_bytes(), _nodes(kits)
        opened = [_status(kits, *own) for own in ((county, nodes["county"]), (university, nodes["university"]))]
        assert opened == [OK, OK]
        assert _engine_status(kits, county, nodes["county"]) == OK
        assert main(["deploy", "revoke", str(kits / "coordinator"), "county"]) == 0
        assert "The coordinator is up and knows it; nothing needs to be started again." in capsys.readouterr().out
        assert wait_until(lambda: _status(kits, county, nodes["county"]) == FORBIDDEN, 60)
        assert _engine_status(kits, county, nodes["county"]) == UNAUTHORIZED
        assert _status(kits, university, nodes["university"]) == OK
        with pytest.raises(ConfigurationError, match=r"does not accept this site's certificate .*revoked"):
            check_way(made_kits.site_kit(kits, "county"))
        assert terminal.poll() is None
        assert id_file(kits / "coordinator").read_bytes() == processes


def test_after_a_renewal_the_new_keys_open_and_the_old_ones_do_not(tmp_path: Path) -> None:
    kits, stolen = made_kits.make(tmp_path), tmp_path / "stolen"
    with coordinator_up(kits):
        before = _nodes(kits)["county"]
        assert _status(kits, _site(kits, "county"), before) == OK
    shutil.copytree(kits / "sites" / "county", stolen)
    assert main(["deploy", "renew", str(kits), "county"]) == 0
    old, new = attacks.site_attacker(stolen, kits / "coordinator" / "ca.crt"), _site(kits, "county")
    with coordinator_up(kits):
        now = _nodes(kits)["county"]
        assert [_status(kits, old, node) for node in (before, now)] == [FORBIDDEN, FORBIDDEN]
        assert [_engine_status(kits, old, node) for node in (before, now)] == [UNAUTHORIZED, UNAUTHORIZED]
        assert _status(kits, new, now) == OK
