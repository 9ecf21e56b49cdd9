"""Says that a node, or a task, is there; again where the engine could not listen."""

from __future__ import annotations

import logging

from flwr.supercore.heartbeat import HeartbeatFailure, HeartbeatSender

LOG = logging.getLogger(__name__)


class PatientSender(HeartbeatSender):
    """Goes on whatever the engine answers: its database may be busy for seconds. Flower's own would end for ever."""

    def _heartbeat(self) -> None:
        try:
            super()._heartbeat()
        except HeartbeatFailure:
            raise
        except Exception as error:
            LOG.warning("the engine was not told that this is alive: %s", str(error).partition("\n")[0])
            raise HeartbeatFailure from error
