"""What the coordinator's own machine asks of its superlink: register nodes, start runs, list them.

Whoever reaches these calls can start programs at every site. They are answered on the loopback address only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor

from nnunet_fedmepd.deployment.certificates import node_key_pem
from nnunet_fedmepd.deployment.flower.patience import may_pass
from nnunet_fedmepd.deployment.kit import CoordinatorKit


class RunState(NamedTuple):
    """How a run stands: `pending`, `starting`, `running` or `finished`; then `completed`, `failed` or `stopped`."""

    status: str
    ended_as: str
    details: str


class Control:
    """Calls of one superlink.

    Args:
        kit: of the coordinator.
    """

    def __init__(self, kit: CoordinatorKit) -> None:
        self._client = ControlHttpClient.from_server_address(
            f"127.0.0.1:{kit.superlink_port}",
            False,
            (kit.folder / "ca.crt").read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def is_ready(self) -> bool:
        """Return whether the superlink does what it is asked."""
        try:
            self.nodes()
        except httpx.HTTPError as error:
            if not may_pass(error):
                raise
            return False
        return True

    def nodes(self) -> dict[bytes, int]:
        """Return the ids of all registered nodes, by their public keys (PEM)."""
        return {info.public_key: info.node_id for info in self._client.ListNodes(ListNodesRequest()).nodes_info}

    def register(self, keys: Mapping[str, bytes]) -> dict[str, int]:
        """Register nodes that are not registered yet, and return the ids of all.

        Args:
            keys: site -> public key of its node, in OpenSSH's format.
        """
        known, ids = self.nodes(), {}
        for site, key in keys.items():
            pem = node_key_pem(key)
            ids[site] = known[pem] if pem in known else self._register(site, pem)
        return ids

    def start(self, app: Path) -> int | None:
        """Start a run of an app in place of any that is there.

        Returns:
            Its id; None where the superlink does not answer: whether it started one then, nobody knows.
        """
        content = build_fab_from_disk(app)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        try:
            self.stop_all()
            return int(self._client.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id)
        except httpx.HTTPError as error:
            if not may_pass(error):
                raise
            return None

    def state(self, run_id: int) -> RunState | None:
        """Return how a run stands; None while the superlink does not answer."""
        try:
            status = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id].status
        except httpx.HTTPError:
            return None
        return RunState(status.status, status.sub_status, status.details)

    def stop_all(self) -> None:
        """Stop every run that has not ended."""
        for run_id, run in self._client.ListRuns(ListRunsRequest()).run_dict.items():
            if run.status.status != "finished":
                self._client.StopRun(StopRunRequest(run_id=run_id))

    def _register(self, site: str, pem: bytes) -> int:
        return int(self._client.RegisterNode(RegisterNodeRequest(public_key=pem, name=site)).node_id)
