"""A coordinator's real processes on the loopback address, with and without each security measure."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nnunet_fedmepd.deployment.flower.control import Control
from nnunet_fedmepd.deployment.flower.programs import app_starter, superlink
from nnunet_fedmepd.deployment.kit import SiteKit
from nnunet_fedmepd.deployment.nginx import proxy_configuration, sidecar_configuration
from nnunet_fedmepd.deployment.processes import Processes, Program, nginx_program
from nnunet_fedmepd.deployment.starting import write_engine_secret
from tests.deployment import made_kits

CLIENT_CERTIFICATES = "client certificates"
AUTHORITY = "our authority signs certificates"
OWN_KEY = "a certificate goes with its site's key"
NODE_CALLS = "calls of nodes only are published"
REGISTERED_KEYS = "the engine knows registered keys only"
NODE_SIGNATURES = "a node signs its calls"
TLS_VERSION = "TLS 1.3 only"
ENCRYPTED = "TLS"
COORDINATOR_VERIFIED = "sites verify the coordinator"

# Measure -> what it is in a configuration, and what would be there without it.
IN_CONFIGURATION = {
    CLIENT_CERTIFICATES: ("ssl_verify_client on;", "ssl_verify_client off;"),
    AUTHORITY: ("ssl_verify_client on;", "ssl_verify_client optional_no_ca;"),
    OWN_KEY: ("if ($is_own_key = 0) { return 403; }", ""),
    TLS_VERSION: ("ssl_protocols TLSv1.3;\n    ssl_certificate", "ssl_protocols TLSv1.2;\n    ssl_certificate"),
    NODE_CALLS: ("if ($is_fleet_call = 0) { return 404; }", ""),
}

APP = {
    "pyproject.toml": """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "foreign"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "foreign"
[tool.flwr.app.components]
serverapp = "foreign.server:app"
clientapp = "foreign.client:app"
[tool.flwr.app.config]
""",
    "foreign/__init__.py": "",
    "foreign/server.py": """
import pathlib
import time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import ServerApp
app = ServerApp()
@app.main()
def main(grid, context):
    marks = pathlib.Path("{marks}")
    (marks / "server").touch()
    until = time.monotonic() + 1800
    while time.monotonic() < until:
        content = RecordDict({{"c": ConfigRecord({{"a": 1}})}})
        messages = [Message(content, dst_node_id=n, message_type="train", ttl=600.0) for n in grid.get_node_ids()]
        for reply in grid.send_and_receive(messages, timeout=600.0):
            if reply.has_error() and reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION:
                (marks / "refused").write_text(reply.error.reason)
        time.sleep(1)
""",
    "foreign/client.py": """
import pathlib
pathlib.Path("{marks}", "client").touch()
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    return Message(RecordDict(), reply_to=message)
""",
}


def write_foreign_app(folder: Path, marks: Path) -> Path:
    """Write an app that is not ours: wherever it is executed, it leaves a mark."""
    marks.mkdir(exist_ok=True)
    for name, text in APP.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(marks=marks) if name.endswith(("server.py", "client.py")) else text)
    return folder


def wait_until(condition: Callable[[], object], seconds: float = 300, watch: Callable[[], None] = lambda: None) -> bool:
    """Return whether a condition came true in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        watch()
        time.sleep(0.2)
    return True


class Loopback:
    """A coordinator without its proxy, and proxies with measures left out.

    Args:
        kits: of the federation.
    """

    def __init__(self, kits: Path) -> None:
        self.kits, self.kit = kits, made_kits.coordinator_kit(kits)
        self.authority = kits / "authority"
        self.ca = kits / "authority" / "ca.crt"
        self.keys = {site.name: self.kit.node_key(site.name).read_bytes() for site in self.kit.federation.site}
        for name in ("logs", "tmp"):
            (self.kit.folder / name).mkdir(exist_ok=True)
        write_engine_secret(self.kit)
        self._running = ExitStack()
        self._proxies: dict[tuple[frozenset[str], int], int] = {}
        self._controls: dict[bool, Control] = {}
        self._ports = {True: self.kit.superlink_port, False: made_kits.free_port()}

    def close(self) -> None:
        """End everything."""
        self._running.close()

    def site(self, name: str) -> Path:
        """Return the folder of a site's kit."""
        return self.kits / "sites" / name

    def control(self, knows_keys: bool = True) -> Control:
        """Return the calls of the engine, started if need be: as deployed, or taking any node."""
        if knows_keys not in self._controls:
            kit = dataclasses.replace(self.kit, superlink_port=self._ports[knows_keys])
            program = superlink(kit)
            if not knows_keys:
                left_out = [word for word in program.command if word != "--enable-supernode-auth"]
                command = ["other.db" if word == "flower.db" else word for word in left_out]
                program = dataclasses.replace(program, name="superlink_for_any_node", command=command)
            self._running.enter_context(Processes([program, app_starter(kit)], self.kit.folder, print).running())
            control = Control(kit)
            self._running.callback(control.close)
            assert wait_until(control.is_ready), (self.kit.logs / f"{program.name}.log").read_text()[-2000:]
            self._controls[knows_keys] = control
        return self._controls[knows_keys]

    def node(self, site: str, knows_keys: bool = True) -> int:
        """Return the id of a site's node."""
        return self.control(knows_keys).register(self.keys)[site]

    def proxy(self, without: Iterable[str] = ()) -> int:
        """Return the port of the coordinator's proxy with measures left out, started if need be."""
        left_out = frozenset(without)
        engine = REGISTERED_KEYS not in left_out
        self.control(engine)
        known = (left_out, self._ports[engine])
        if known not in self._proxies:
            port, name = made_kits.free_port(), f"proxy_{len(self._proxies)}"
            kit = dataclasses.replace(self.kit, port=port, superlink_port=self._ports[engine])
            text = without_measures(proxy_configuration(kit, self.keys), left_out)
            start_nginx(self._running, self.kit.folder, name, text, port)
            self._proxies[known] = port
        return self._proxies[known]


def without_measures(configuration: str, left_out: Iterable[str]) -> str:
    """Return a configuration without some measures; each must have been in it."""
    for measure in left_out:
        if measure in IN_CONFIGURATION:
            with_it, without_it = IN_CONFIGURATION[measure]
            assert with_it in configuration
            configuration = configuration.replace(with_it, without_it)
    return configuration


def start_nginx(running: ExitStack, folder: Path, name: str, configuration: str, port: int) -> None:
    """Start nginx with a configuration beside the kit's own, and wait for its port."""
    (folder / f"{name}.conf").write_text(configuration.replace("tmp/nginx.pid", f"tmp/{name}.pid"))
    command = [nginx_program(), "-p", ".", "-c", f"{name}.conf", "-e", f"logs/{name}_error.log"]
    running.enter_context(Processes([Program(name, command)], folder, print).running())
    log = folder / "logs" / f"{name}.log"
    assert wait_until(lambda: is_open(port)), log.read_text()[-2000:]


def is_open(port: int, address: str = "127.0.0.1") -> bool:
    """Return whether somebody listens."""
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((address, port)) == 0


@contextmanager
def sidecar(kit: SiteKit, change: Callable[[str], str] = lambda text: text) -> Iterator[int]:
    """Run a site's sidecar, its configuration changed, and give its port."""
    for name in ("logs", "tmp"):
        (kit.folder / name).mkdir(exist_ok=True)
    port = made_kits.free_port()
    text = change(sidecar_configuration(dataclasses.replace(kit, sidecar_port=port)))
    with ExitStack() as running:
        start_nginx(running, kit.folder, f"sidecar_{port}", text, port)
        yield port
