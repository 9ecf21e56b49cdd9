"""Attacks on real processes: each is refused by every measure against it alone, and succeeds without them.

That it succeeds shows that the attack is one; that a single measure refuses it shows that none relies on another.
"""

from __future__ import annotations

import contextlib
import http
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.build import build_fab_from_disk
from google.protobuf.message import Message

from nnunet_fedmepd.deployment.certificates import (
    Authority,
    certificate_bytes,
    client_certificate,
    key_bytes,
    load_certificate,
    load_private_key,
    new_authority,
    new_key,
    server_certificate,
    write_private,
)
from nnunet_fedmepd.deployment.checks import check_way
from nnunet_fedmepd.deployment.kit import load_site_kit
from nnunet_fedmepd.errors import ConfigurationError
from tests.deployment import attacker as attacks
from tests.deployment import made_kits
from tests.deployment.attacker import Attacker, Certificate
from tests.deployment.certificate_measure import CURRENT_CERTIFICATE
from tests.deployment.loopback import (
    AUTHORITY,
    CLIENT_CERTIFICATES,
    COORDINATOR_VERIFIED,
    ENCRYPTED,
    NODE_CALLS,
    NODE_SIGNATURES,
    OWN_KEY,
    REGISTERED_KEYS,
    TLS_VERSION,
    Loopback,
    is_open,
    sidecar,
    wait_until,
    write_foreign_app,
)
from tests.deployment.security_table import SecurityTable

OK = http.HTTPStatus.OK

pytestmark = pytest.mark.deployment


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> SecurityTable:
    return SecurityTable.of(request.config)


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with contextlib.closing(Loopback(made_kits.make(tmp_path_factory.mktemp("deployment")))) as running:
        for knows_keys in (True, False):
            running.control(knows_keys).register(running.keys)
        yield running


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An app that is not ours, and the folder in which it leaves a mark wherever it is executed."""
    folder = tmp_path_factory.mktemp("foreign")
    return write_foreign_app(folder / "app", folder / "marks"), folder / "marks"


# --------------------------------------------------------------------------------------- attacks on the published port


@dataclass(frozen=True)
class Attack:
    """Something that somebody tries at the coordinator's port.

    Attributes:
        who: makes the attacker.
        call: makes the request, to an engine that knows registered keys only, or to one that takes any node.
        measures: each of which refuses it, all others left out.
        gained: whether it came to something; the answer alone may not tell.
    """

    who: Callable[[Loopback], Attacker]
    call: Callable[[Loopback, Attacker, bool], tuple[str, Message]]
    measures: tuple[str, ...]
    gained: Callable[[Loopback, Attacker], bool] = lambda loopback, attacker: True


def somebody(loopback: Loopback) -> Attacker:
    return attacks.stranger(loopback.ca)


def county(loopback: Loopback) -> Attacker:
    return attacks.site_attacker(loopback.site("county"), loopback.ca)


def county_with_the_key_of_university(loopback: Loopback) -> Attacker:
    key = loopback.site("university") / "supernode.key"
    return attacks.site_attacker(loopback.site("county"), loopback.ca, key)


def county_with_a_new_key(loopback: Loopback) -> Attacker:
    return Attacker(loopback.ca, county(loopback).client, new_key())


def county_with_certificate(loopback: Loopback, authority: Authority, days: int) -> Attacker:
    known = county(loopback)
    key: ec.EllipticCurvePublicKey = load_private_key(loopback.site("county") / "client.key").public_key()
    file = loopback.kits / f"{days}_{authority.certificate.serial_number}.crt"
    file.write_bytes(certificate_bytes(client_certificate(authority, key, "county", days)))
    return Attacker(loopback.ca, Certificate(file, loopback.site("county") / "client.key"), known.node_key)


def county_with_an_expired_certificate(loopback: Loopback) -> Attacker:
    folder = loopback.authority
    authority = Authority(load_private_key(folder / "client_ca.key"), load_certificate(folder / "client_ca.crt"))
    return county_with_certificate(loopback, authority, -1)


def county_certified_by_a_stranger(loopback: Loopback) -> Attacker:
    return county_with_certificate(loopback, new_authority("nnunet-fedmepd client authority"), 30)


def as_county(loopback: Loopback, who: Attacker, knows_keys: bool) -> tuple[str, Message]:
    return attacks.read_messages(loopback.node("county", knows_keys))


def as_university(loopback: Loopback, who: Attacker, knows_keys: bool) -> tuple[str, Message]:
    return attacks.read_messages(loopback.node("university", knows_keys))


def is_registered(loopback: Loopback, attacker: Attacker) -> bool:
    return any(attacker.public_key in loopback.control(knows).nodes() for knows in (True, False))


ATTACKS = {
    "a stranger joins as a node": Attack(
        somebody,
        lambda loopback, who, knows: attacks.register_over_fleet(who),
        (CLIENT_CERTIFICATES, CURRENT_CERTIFICATE, OWN_KEY, NODE_CALLS, REGISTERED_KEYS),
        is_registered,
    ),
    "a stranger registers a node": Attack(
        somebody,
        lambda loopback, who, knows: attacks.register(who),
        (CLIENT_CERTIFICATES, CURRENT_CERTIFICATE, OWN_KEY, NODE_CALLS),
        is_registered,
    ),
    "a stranger reads what runs": Attack(
        somebody,
        lambda loopback, who, knows: attacks.list_runs(),
        (CLIENT_CERTIFICATES, CURRENT_CERTIFICATE, OWN_KEY, NODE_CALLS),
    ),
    "an unregistered key joins with a site's certificate": Attack(
        county_with_a_new_key,
        lambda loopback, who, knows: attacks.register_over_fleet(who),
        (OWN_KEY, NODE_CALLS, REGISTERED_KEYS),
        is_registered,
    ),
    "an expired certificate joins": Attack(
        county_with_an_expired_certificate,
        as_county,
        (CLIENT_CERTIFICATES, CURRENT_CERTIFICATE, OWN_KEY),
    ),
    "a certificate of a stranger's authority joins": Attack(
        county_certified_by_a_stranger, as_county, (AUTHORITY, CURRENT_CERTIFICATE)
    ),
    "a site joins as another site, with its node key": Attack(
        county_with_the_key_of_university, as_university, (OWN_KEY,)
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_by_every_measure_alone_and_succeeds_without(
    loopback: Loopback, table: SecurityTable, name: str
) -> None:
    attack = ATTACKS[name]
    statuses = {}
    for measure in attack.measures:
        who, statuses[measure] = _attempt(loopback, attack, [other for other in attack.measures if other != measure])
        assert statuses[measure] != OK
        assert not (attack.gained is is_registered and is_registered(loopback, who))
    who, status = _attempt(loopback, attack, attack.measures)
    assert status == OK
    assert attack.gained(loopback, who)
    table.add(name, statuses, "succeeds")


def _attempt(loopback: Loopback, attack: Attack, without: Sequence[str]) -> tuple[Attacker, int]:
    who = attack.who(loopback)
    call = attack.call(loopback, who, REGISTERED_KEYS not in without)
    return who, who.post(loopback.proxy(without), *call).status


def test_a_site_as_it_is_gets_what_is_sent_to_it(loopback: Loopback) -> None:
    who = county(loopback)
    assert who.post(loopback.proxy(), *as_county(loopback, who, True)).status == OK


def test_a_site_does_not_get_what_is_sent_to_another(loopback: Loopback, table: SecurityTable) -> None:
    call = as_university(loopback, county(loopback), True)
    refused = county(loopback).post(loopback.proxy(), *call).status
    assert refused == http.HTTPStatus.UNAUTHORIZED
    port = loopback.proxy([OWN_KEY])
    assert county(loopback).post(port, *call).status == http.HTTPStatus.UNAUTHORIZED
    assert county_with_the_key_of_university(loopback).post(port, *call).status == OK
    table.add("a site reads what is sent to another", {NODE_SIGNATURES: refused}, "succeeds")


@pytest.mark.parametrize("who", [somebody, county], ids=["a stranger", "a site"])
def test_nobody_starts_code_or_stops_a_run_through_the_published_port(
    loopback: Loopback, table: SecurityTable, foreign: tuple[Path, Path], who: Callable[[Loopback], Attacker]
) -> None:
    app, marks = foreign
    against = (NODE_CALLS,) if who is county else (CLIENT_CERTIFICATES, CURRENT_CERTIFICATE, OWN_KEY, NODE_CALLS)
    name, executed = "a site" if who is county else "a stranger", marks / "server"
    executed.unlink(missing_ok=True)
    control, fab = loopback.control(), build_fab_from_disk(app)
    statuses = {}
    for measure in against:
        port = loopback.proxy([other for other in against if other != measure])
        statuses[measure] = who(loopback).post(port, *attacks.start_code(fab)).status
        assert statuses[measure] != OK
    assert not executed.exists()
    assert who(loopback).post(loopback.proxy(against), *attacks.start_code(fab)).status == OK
    assert wait_until(executed.exists)
    table.add(f"{name} starts code", statuses, "it runs at the coordinator")
    control.stop_all()

    run_id = control.start(app)
    for measure in against:
        port = loopback.proxy([other for other in against if other != measure])
        statuses[measure] = who(loopback).post(port, *attacks.stop(run_id)).status
        assert statuses[measure] != OK
    assert control.state(run_id).status != "finished"
    assert who(loopback).post(loopback.proxy(against), *attacks.stop(run_id)).status == OK
    assert control.state(run_id).ended_as == "stopped"
    table.add(f"{name} stops a run", statuses, "it is stopped")


TRICKS = [
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/pull-messages/../../control/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet//../control/list-runs",
    "//v1/control/list-runs",
    "/./v1/control/list-runs",
    "/v1/control/list-runs?/v1/fleet/pull-messages",
    "/v1/control/list-runs#/v1/fleet/pull-messages",
    "/v1/control/list-runs%00/v1/fleet/pull-messages",
    "/v1/fleet/pull-messages%0a/v1/control/list-runs",
    "/V1/CONTROL/list-runs",
    "/v1/runtime/pull-task-input",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/docs",
    "/openapi.json",
    "/",
]


def test_no_spelling_of_a_path_gets_past_the_proxy(loopback: Loopback, table: SecurityTable) -> None:
    port, who = loopback.proxy(), county(loopback)
    _, message = attacks.list_runs()
    statuses = {}
    for path in TRICKS:
        statuses[path] = who.post(port, path, message).status
    assert set(statuses.values()) <= {400, 404}, statuses
    off = who.post(loopback.proxy([NODE_CALLS]), TRICKS[0], message).status
    assert off == OK
    table.add(f"{len(TRICKS)} spellings of paths", {NODE_CALLS: "400 or 404"}, "runs are listed")


# ------------------------------------------------------------------------------------------------------- on the wire


class Wiretap:
    """Passes a connection on to a port, and keeps what it saw."""

    def __init__(self, port: int) -> None:
        self._target, self.seen, self._server = port, bytearray(), socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._server.accept()
                other = socket.create_connection(("127.0.0.1", self._target))
                for source, sink in ((one, other), (other, one)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.seen += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def without_encryption(text: str) -> str:
    """Return a sidecar's configuration that sends what it gets as it is."""
    assert "proxy_pass https://coordinator" in text
    return text.replace("proxy_pass https://coordinator", "proxy_pass http://coordinator")


def test_nothing_can_be_read_on_the_wire(loopback: Loopback, table: SecurityTable) -> None:
    who = county(loopback)
    path, message = as_county(loopback, who, True)
    secret = b64encode(who.public_key)
    seen = {}
    for change in (lambda text: text, without_encryption):
        with contextlib.closing(Wiretap(loopback.proxy())) as tap:
            made_kits.write_site_toml(loopback.site("county"), loopback.kits, via=f"127.0.0.1:{tap.port}")
            kit = load_site_kit(loopback.site("county"))
            with sidecar(kit, change) as port:
                # To its own sidecar a node shows no certificate.
                inside = Attacker(loopback.site("county") / "client_ca.crt", None, who.node_key)
                status = inside.post(port, path, message).status
            seen[change] = (status, len(tap.seen) > 500, secret in tap.seen or path.encode() in tap.seen)
    (joined, passed, readable), (refused, _, readable_without) = seen.values()
    assert (joined, passed, readable) == (OK, True, False)
    assert readable_without
    assert refused == http.HTTPStatus.BAD_REQUEST  # the coordinator's proxy takes no plain text
    table.add("somebody reads on the wire", {ENCRYPTED: "noise"}, "keys and calls can be read")


def test_old_versions_of_tls_are_refused(loopback: Loopback, table: SecurityTable) -> None:
    context = ssl.create_default_context(cafile=str(loopback.ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="alert protocol version"):
        _shake_hands(loopback.proxy(), context)
    _shake_hands(loopback.proxy([TLS_VERSION]), context)
    table.add("an old version of TLS", {TLS_VERSION: "no handshake"}, "accepted")


def _shake_hands(port: int, context: ssl.SSLContext) -> None:
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="coordinator"),
    ):
        pass


def test_a_site_tells_nothing_to_a_false_coordinator(loopback: Loopback, table: SecurityTable, tmp_path: Path) -> None:
    key, authority = new_key(), new_authority("nnunet-fedmepd server authority")
    write_private(tmp_path / "key", key_bytes(key))
    certificate = server_certificate(authority, key.public_key(), "127.0.0.1")
    (tmp_path / "crt").write_bytes(certificate_bytes(certificate))
    heard: list[bytes] = []
    with _false_coordinator(tmp_path, heard) as false_port:
        made_kits.write_site_toml(loopback.site("county"), loopback.kits, via=f"127.0.0.1:{false_port}")
        kit = load_site_kit(loopback.site("county"))
        with pytest.raises(ConfigurationError, match="is not the coordinator of this kit"):
            check_way(kit)
        who = Attacker(loopback.site("county") / "client_ca.crt", None, county(loopback).node_key)
        with sidecar(kit) as port:
            assert who.post(port, *as_county(loopback, who, True)).status == http.HTTPStatus.BAD_GATEWAY
        assert not heard
        with sidecar(kit, lambda text: text.replace("proxy_ssl_verify on;", "proxy_ssl_verify off;")) as port:
            who.post(port, *as_county(loopback, who, True))
        assert b"/v1/fleet/pull-messages" in heard[0]
    table.add("a false coordinator", {COORDINATOR_VERIFIED: "hears nothing"}, "hears the site")


@contextlib.contextmanager
def _false_coordinator(folder: Path, heard: list[bytes]) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                plain, _ = server.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                if data := connection.recv(65536):
                    heard.append(data)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()


def test_the_engine_itself_is_reached_from_its_own_machine_only(loopback: Loopback, table: SecurityTable) -> None:
    loopback.control()
    address = _own_address()
    if address is None:
        pytest.skip("this machine has no address but the loopback one")
    assert is_open(loopback.kit.superlink_port)
    assert not is_open(loopback.kit.superlink_port, address)
    stopped_by = {"it binds the loopback address": "no connection"}
    table.add("the engine's own port, from another machine", stopped_by, "(it would open this machine)")


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; an address that nobody has
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address
