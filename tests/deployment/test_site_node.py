"""A site's node that is killed is known to be gone after two intervals, and is taken when it is started again."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from flwr.proto.control_pb2 import ListNodesRequest
from flwr.proto.node_pb2 import NodeInfo

from nnunet_fedmepd.deployment.flower.programs import supernode
from nnunet_fedmepd.deployment.flower.site_node import INTERVAL_SECONDS
from nnunet_fedmepd.deployment.kit import load_site_kit
from nnunet_fedmepd.deployment.processes import Processes, id_file
from nnunet_fedmepd.deployment.starting import write_engine_secret
from tests.deployment import made_kits
from tests.deployment.fault_table import FaultTable, repeated
from tests.deployment.loopback import Loopback, sidecar, wait_until

pytestmark = [pytest.mark.deployment, repeated()]
SECONDS = 600  # that a busy machine has for each step


def test_a_killed_node_is_known_to_be_gone_and_taken_again(
    loopback: Loopback, tmp_path: Path, request: pytest.FixtureRequest, repeat: int
) -> None:
    made_kits.write_site_toml(loopback.site("county"), tmp_path, via=f"127.0.0.1:{loopback.proxy()}")
    kit, node = load_site_kit(loopback.site("county")), loopback.node("county")

    def info() -> NodeInfo:
        nodes = loopback.control()._client.ListNodes(ListNodesRequest()).nodes_info
        return next(own for own in nodes if own.node_id == node)

    with sidecar(kit) as port:
        kit = dataclasses.replace(kit, sidecar_port=port)
        write_engine_secret(kit)
        with Processes([supernode(kit)], kit.folder, print).running() as processes:
            assert wait_until(lambda: info().status == "online", SECONDS, processes.watch)
            assert info().heartbeat_interval == INTERVAL_SECONDS
            os.kill(json.loads(id_file(kit.folder).read_bytes())["supernode"], signal.SIGKILL)
            killed, first = info().online_until, info().last_activated_at
            assert wait_until(lambda: info().status == "offline", SECONDS)
            assert info().online_until == killed
            assert wait_until(lambda: info().status == "online", SECONDS, processes.watch)
            assert info().last_activated_at > first
    FaultTable.of(request.config).add(
        "a site's node killed", f"known to be gone within {2 * INTERVAL_SECONDS} s, taken again when it is started"
    )
