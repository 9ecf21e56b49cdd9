"""The coordinator as Flower's server app."""

from __future__ import annotations

import json
import os
from typing import cast

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid import HttpGrid

from nnunet_fedmepd.deployment.coordinator_service import coordinate
from nnunet_fedmepd.deployment.flower.grid_channel import GridChannel
from nnunet_fedmepd.deployment.kit import KIT_VARIABLE, load_coordinator_kit
from nnunet_fedmepd.runtime.orphans import end_with_parent

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation of the kit that the superlink was started for."""
    # The engine asks it to end, but in vain while it sends to a superlink that is gone; and it holds the run's lock.
    end_with_parent()
    kit = load_coordinator_kit(os.environ[KIT_VARIABLE])
    nodes = json.loads(kit.node_file.read_bytes())
    coordinate(kit, GridChannel(cast(HttpGrid, grid), nodes))
