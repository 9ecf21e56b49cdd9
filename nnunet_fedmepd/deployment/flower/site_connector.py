"""A site's end of Flower: takes tasks from the site's own node, and hands them to the site's process by the spool.

    python -m nnunet_fedmepd.deployment.flower.site_connector PORT SPOOL SECRET

Flower would install the app that comes with a task, and run it. Here nothing that comes is executed: a task's message
is read, and that is all. The node must run with `--isolation process`. Nothing here imports torch.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

import httpx
from flwr.app import Message, RecordDict
from flwr.app.error import Error
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from nnunet_fedmepd.deployment.flower.idleness import QUESTION
from nnunet_fedmepd.deployment.flower.payload import PayloadError, from_content, to_content
from nnunet_fedmepd.deployment.spool import Spool, SpoolError, key_of

LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
_COMPONENT = "flwr-clientapp"
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


class SiteConnector:
    """Takes one task after the other.

    Args:
        port: of the node, on the loopback address.
        spool: to the site's process.
        secret: that the node was started with.
    """

    def __init__(self, port: int, spool: Spool, secret: bytes) -> None:
        self.address, self.spool = f"127.0.0.1:{port}", spool
        signs = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=[_ACQUIRE])
        self._node = RuntimeHttpClient.from_server_address(
            self.address, True, None, [RuntimeVersionHttpInterceptor(component_name=_COMPONENT), signs]
        )

    def run(self, stop: threading.Event) -> None:
        """Take tasks until told to stop, whether the node is there or not."""
        wanted = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        while not stop.is_set():
            try:
                acquired = self._node.AcquireTask(wanted)
                if acquired.HasField("task") and acquired.token:
                    self._do_task(acquired.token)
                    continue
            except httpx.HTTPError as error:
                LOG.warning("the site's node: %s", type(error).__name__)
                stop.wait(1)
            stop.wait(_POLL_SECONDS)

    def _do_task(self, token: str) -> None:
        client = RuntimeHttpClient.from_server_address(
            self.address,
            True,
            None,
            [RuntimeVersionHttpInterceptor(component_name=_COMPONENT), RuntimeTokenHttpInterceptor(token)],
            retry_invoker=make_simple_http_retry_invoker(),
        )
        lost = threading.Event()
        heartbeat = HeartbeatSender(lambda: _beat(client, lost))
        heartbeat.start()
        try:
            message, context, _, _ = pull_task_input(client)
            push_message(client, self._reply(message, lost), context)
            push_task_output(client, context, SubStatus.COMPLETED, "")
        except (RuntimeError, ObjectPullError, ObjectPushError) as error:
            LOG.warning("a task is given up: %s", error)
            push_task_output(
                client, None, SubStatus.FAILED, "The message could not be read, or its answer not be sent."
            )
        finally:
            heartbeat.stop()
            client.close()

    def _reply(self, message: Message, lost: threading.Event) -> Message:
        if message.metadata.message_type == QUESTION:
            return Message(RecordDict(), reply_to=message)
        try:
            request = from_content(message.content)
            message.content = RecordDict()  # the memory is needed for the answer
            answer = self.spool.ask(key_of(request), request, lost.is_set)
            del request
        except (PayloadError, SpoolError) as error:
            told = str(error)
        except OSError as error:
            told = f"the site's spool cannot be written: {error.strerror}"
        else:
            return Message(to_content(answer), reply_to=message)
        LOG.warning("%s", told)
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, told), reply_to=message)


def _beat(client: RuntimeHttpClient, lost: threading.Event) -> bool:
    """Tell the node that its task is in work; it may have forgotten the task, since it was started again."""
    try:
        known = client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
    except httpx.TransportError:
        return False
    except httpx.HTTPStatusError:
        known = False
    if not known:
        lost.set()
    return True


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    own_port, own_spool, own_secret = sys.argv[1:]
    SiteConnector(int(own_port), Spool(Path(own_spool)), Path(own_secret).read_bytes()).run(threading.Event())
