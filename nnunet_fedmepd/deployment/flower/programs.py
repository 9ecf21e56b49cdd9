"""Flower's long-lived programs, as a kit starts them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nnunet_fedmepd.deployment.kit import KIT_VARIABLE, CoordinatorKit, Kit, SiteKit
from nnunet_fedmepd.deployment.processes import Program, installed_program

# For two of its intervals the engine takes a killed node for alive and refuses a second one; so often it is tried.
_NODE_RESTART_SECONDS = 10

APP = Path(__file__).parent / "app"
"""Folder of the app that the coordinator starts."""


def superlink(kit: CoordinatorKit) -> Program:
    """Return the coordinator's side: it binds the loopback address, and knows nodes by their registered keys."""
    command = [
        *(installed_program("flower-superlink"), "--host", "127.0.0.1", "--port", str(kit.superlink_port)),
        *("--ssl-certfile", "server.crt", "--ssl-keyfile", "server.key", "--ssl-ca-certfile", "ca.crt"),
        *("--enable-supernode-auth", "--database", "flower.db", "--disable-runtime-dependency-installation"),
        *("--isolation", "process", *_secret(kit)),
    ]
    return Program("superlink", command, _variables(kit.folder, kit.flwr_home), restart_seconds=5)


def app_starter(kit: CoordinatorKit) -> Program:
    """Return what starts the coordinator's app; were it the superlink's, nobody would start it again."""
    command = [
        *(sys.executable, "-m", "nnunet_fedmepd.deployment.flower.app_starter"),
        *("--runtime-api-address", f"127.0.0.1:{kit.superlink_port}", "--root-certificates", "ca.crt"),
        *_secret(kit),
    ]
    return Program("app_starter", command, _variables(kit.folder, kit.flwr_home))


def supernode(kit: SiteKit) -> Program:
    """Return a site's side: it connects to the site's own proxy only, and starts nothing that it is sent."""
    command = [
        *(sys.executable, "-m", "nnunet_fedmepd.deployment.flower.site_node"),
        *("--superlink", f"127.0.0.1:{kit.sidecar_port}"),
        *("--root-certificates", "client_ca.crt", "--auth-supernode-private-key", "supernode.key"),
        *("--host", "127.0.0.1", "--port", str(kit.supernode_port)),
        *("--isolation", "process", *_secret(kit)),
    ]
    return Program(
        "supernode", command, _variables(kit.folder, kit.folder / "flwr"), restart_seconds=_NODE_RESTART_SECONDS
    )


def connector(kit: SiteKit) -> Program:
    """Return what takes tasks from a site's node and hands them to the site's service."""
    module = "nnunet_fedmepd.deployment.flower.site_connector"
    command = [sys.executable, "-m", module, str(kit.supernode_port), str(kit.spool_folder), str(kit.engine_secret)]
    return Program("connector", command, _variables(kit.folder, kit.folder / "flwr"))


def _secret(kit: Kit) -> tuple[str, str]:
    return "--superexec-auth-secret-file", str(kit.engine_secret.relative_to(kit.folder))


def _variables(folder: Path, home: Path) -> dict[str, str]:
    """Return the environment: Flower finds its other programs, asks nobody on the internet, and logs no calls."""
    return {
        KIT_VARIABLE: str(folder),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_LOG_LEVEL": "WARNING",
        "MALLOC_MMAP_THRESHOLD_": str(2**20),  # pieces of payloads are given back to the system when they are freed
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
