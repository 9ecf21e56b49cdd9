"""A site's node of Flower, which says more often that it is there.

    python -m nnunet_fedmepd.deployment.flower.site_node ARGUMENTS OF flower-supernode

The engine takes a node for alive until two intervals have passed without a word, by default a minute. Until then nobody
knows that a site is gone, and its node is refused when it is started again. The interval is the node's to choose, but
Flower has no option for it.
"""

from __future__ import annotations

import httpx
from flwr.supercore import heartbeat
from flwr.supercore.heartbeat import HeartbeatFailure, HeartbeatSender
from flwr.supernode import fleet_http_connection
from flwr.supernode.cli import flower_supernode

INTERVAL_SECONDS = 15
"""A node that is gone is known to be after twice as long; Flower takes 10 or more."""


class _PatientSender(HeartbeatSender):
    """Says it again where the engine could not listen: its database may be busy for seconds. Flower's own would end."""

    def _heartbeat(self) -> None:
        try:
            super()._heartbeat()
        except httpx.HTTPStatusError as error:
            if not error.response.is_server_error:
                raise
            raise HeartbeatFailure from error


def main() -> None:
    """Run the node."""
    changes = {"HEARTBEAT_DEFAULT_INTERVAL": INTERVAL_SECONDS, "HeartbeatSender": _PatientSender}
    for module in (heartbeat, fleet_http_connection):
        vars(module).update(changes)
    flower_supernode()


if __name__ == "__main__":
    main()
