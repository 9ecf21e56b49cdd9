"""The coordinator as Flower's server app."""

from __future__ import annotations

import json
import os
from typing import cast

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.heartbeat import make_task_heartbeat_fn_http
from flwr.superlink.grid import HttpGrid

from nnunet_fedmepd.deployment.coordinator_service import coordinate
from nnunet_fedmepd.deployment.flower.grid_channel import GridChannel
from nnunet_fedmepd.deployment.flower.heartbeats import PatientSender
from nnunet_fedmepd.deployment.kit import KIT_VARIABLE, load_coordinator_kit
from nnunet_fedmepd.runtime.orphans import end_with_parent

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation of the kit that the superlink was started for."""
    # The engine asks it to end, but in vain while it sends to a superlink that is gone; and it holds the run's lock.
    end_with_parent()
    kit, own_grid = load_coordinator_kit(os.environ[KIT_VARIABLE]), cast(HttpGrid, grid)
    nodes = json.loads(kit.node_file.read_bytes())
    # The engine's own sender ends for ever where the superlink cannot listen once, and a minute later so does this app.
    heartbeats = PatientSender(make_task_heartbeat_fn_http(own_grid._runtime_client))
    heartbeats.start()
    try:
        coordinate(kit, GridChannel(own_grid, nodes))
    finally:
        heartbeats.stop()  # from here on the task may be done, and a heartbeat of such a one ends the process
