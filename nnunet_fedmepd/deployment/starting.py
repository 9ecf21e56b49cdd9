"""Brings up what a kit is for, and keeps it up until the federation is done or somebody ends it."""

from __future__ import annotations

import json
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from nnunet_fedmepd.deployment.flower.control import Control
from nnunet_fedmepd.deployment.flower.patience import patiently
from nnunet_fedmepd.deployment.flower.programs import app_starter, connector, superlink, supernode
from nnunet_fedmepd.deployment.following import Follower
from nnunet_fedmepd.deployment.kit import CoordinatorKit, Kit, SiteKit
from nnunet_fedmepd.deployment.nginx import proxy_configuration, sidecar_configuration
from nnunet_fedmepd.deployment.processes import ProcessError, Processes, Program, installed_program, nginx_program
from nnunet_fedmepd.deployment.systemd import RESTART_SECONDS, unit
from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.federation.storage import write_atomically
from nnunet_fedmepd.runtime.run_folder import RunFolder


class StoppedError(FedMEPDError):
    """The coordinator stopped, and said why; started again, it goes on."""


Report = Callable[[str], None]

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_START = 120.0
SERVICE = "service"


def write_coordinator_configuration(kit: CoordinatorKit) -> None:
    """Write the proxy's configuration and the unit for systemd, as this machine needs them."""
    keys = {site.name: kit.node_key(site.name).read_bytes() for site in kit.federation.site}
    _write(kit.folder / "nginx.conf", proxy_configuration(kit, keys))
    command = [installed_program("fedmepd"), "deploy", "up", str(kit.folder)]
    text = unit(f"Coordinator of the federation {kit.federation.name}", command, kit.folder, {})
    _write(kit.folder / "fedmepd-coordinator.service", text)


def write_site_configuration(kit: SiteKit) -> None:
    """Write the sidecar's configuration and the unit for systemd, as this machine needs them."""
    _write(kit.folder / "nginx.conf", sidecar_configuration(kit))
    command = [installed_program("fedmepd"), "site", "up", str(kit.folder)]
    text = unit(f"Site {kit.site} of the federation {kit.federation.name}", command, kit.folder, kit.variables)
    _write(kit.folder / f"fedmepd-site-{kit.site}.service", text)


def bring_up_site(kit: SiteKit, report: Report) -> None:
    """Run a site's processes until its service says that the federation is done.

    Raises:
        ProcessError: a port is taken, or a program cannot be started.
    """
    command = [sys.executable, "-m", "nnunet_fedmepd.deployment.site_service", str(kit.folder)]
    service = Program(SERVICE, command, kit.variables, restart_seconds=RESTART_SECONDS)
    with Processes(site_programs(kit, service), kit.folder, report).running() as processes:
        report(f"Site {kit.site} is up; logs are in {kit.logs}. Ctrl-C ends it, the same command goes on.")
        log = Follower(kit.logs / "site.log", report)
        while processes.has_ended(SERVICE) != 0:
            processes.watch()
            log.look()
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    report(f"The federation has ended; site {kit.site} keeps its model.")


def site_programs(kit: SiteKit, service: Program) -> list[Program]:
    """Return the programs of a site around its service, after writing what they need.

    Raises:
        ProcessError: a port is taken.
    """
    write_site_configuration(kit)
    prepare(kit, {"sidecar_port": kit.sidecar_port, "supernode_port": kit.supernode_port})
    return [service, _nginx("sidecar"), supernode(kit), connector(kit)]


def write_engine_secret(kit: Kit) -> None:
    """Make a new secret: other users of this machine cannot take tasks from the kit's engine."""
    kit.engine_secret.unlink(missing_ok=True)
    kit.engine_secret.touch(0o600)
    kit.engine_secret.write_bytes(secrets.token_bytes(32))


def bring_up_coordinator(kit: CoordinatorKit, app: Path, report: Report) -> None:
    """Run the coordinator's processes, and its app in them, until the federation is done.

    Args:
        kit: of the coordinator.
        app: folder of the engine's app.
        report: told what happens, a line each.

    Raises:
        ProcessError: a port is taken, a program cannot be started, or the superlink does not answer.
        StoppedError: the coordinator stopped on purpose, as where too few sites were there.
    """
    write_coordinator_configuration(kit)
    _write_connection(kit)
    prepare(kit, {"superlink_port": kit.superlink_port, "port": kit.port})
    keys = {site.name: kit.node_key(site.name).read_bytes() for site in kit.federation.site}
    with Processes([superlink(kit), app_starter(kit)], kit.folder, report).running() as processes:
        control = Control(kit)
        try:
            wait_for_superlink(control, processes)
            patiently(control.stop_all)  # what a coordinator that was killed left behind
            write_atomically(kit.node_file, json.dumps(patiently(partial(control.register, keys))).encode())
            processes.start(_nginx("proxy"))  # last: a node that is not registered yet is turned away, and gives up
            report(f"The coordinator is up on {kit.listen}:{kit.port}; logs are in {kit.logs}.")
            _run(control, processes, app, RunFolder(kit.run_folder), report)
        finally:
            control.close()
    report("The federation has ended.")


def _run(control: Control, processes: Processes, app: Path, run: RunFolder, report: Report) -> None:
    """Run the app until it ends with a federation that has ended; whenever it ends before, start it again."""
    log = Follower(run.path / "federation.log", report)
    run_id: int | None = None
    while True:
        processes.watch()
        log.look()
        if run_id is None:
            run_id = control.start(app)
        state = control.state(run_id) if run_id is not None else None
        if state is not None and state.status == "finished":
            if _has_ended(run):
                return
            from nnunet_fedmepd.deployment.coordinator_service import why_stopped  # it imports nnU-Net, for seconds

            if (why := why_stopped(run)) is not None:
                raise StoppedError(why)
            report(f"The coordinator's app ended ({state.ended_as}). {state.details}".rstrip())
            time.sleep(RESTART_SECONDS)
            run_id = None
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _has_ended(run: RunFolder) -> bool:
    return (run.path / "status.json").is_file() and run.status()["state"] == "finished"


def wait_for_superlink(control: Control, processes: Processes) -> None:
    """Wait until the engine answers.

    Raises:
        ProcessError: it does not, or a process ended.
    """
    until = time.monotonic() + _SECONDS_TO_START
    while not control.is_ready():
        processes.watch()
        if time.monotonic() > until:
            raise ProcessError(f"The superlink does not answer; see {processes.folder / 'logs' / 'superlink.log'}.")
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def prepare(kit: Kit, ports: Mapping[str, int]) -> None:
    """See that a kit's ports are free, and make its folders of logs and of short-lived files, and its engine's secret.

    Args:
        kit: that is about to be brought up.
        ports: key in its kit.toml -> port.

    Raises:
        ProcessError: a port is taken.
    """
    for name in ("logs", "tmp"):
        (kit.folder / name).mkdir(mode=0o700, exist_ok=True)
    for name, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ProcessError(
                    f"Port {port} ({name} in {kit.folder / 'kit.toml'}) cannot be used: {error.strerror}. Is this kit "
                    "up already? Else name another port there."
                ) from None
    write_engine_secret(kit)  # not before: what holds the ports may be this kit's own engine, which knows the old one


def _write_connection(kit: CoordinatorKit) -> None:
    """Write Flower's own configuration, for its command line on this machine: `flwr list coordinator`."""
    lines = ["[superlink]", 'default = "coordinator"', "[superlink.coordinator]"]
    lines += [f'address = "127.0.0.1:{kit.superlink_port}"']
    lines += [f"root-certificates = {json.dumps(str(kit.folder / 'ca.crt'))}"]
    _write(kit.flwr_home / "config.toml", "\n".join(lines) + "\n")


def _nginx(name: str) -> Program:
    # Paths in the configuration are relative to the kit, so that it can be moved.
    return Program(name, [nginx_program(), "-p", ".", "-c", "nginx.conf", "-e", f"logs/{name}_error.log"])


def _write(file: Path, text: str) -> None:
    write_atomically(file, text.encode())
