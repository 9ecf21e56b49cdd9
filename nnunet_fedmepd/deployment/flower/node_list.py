"""The engine's list of nodes, from which those go whose keys are not a site's any more."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.proto.control_pb2 import ListNodesRequest, UnregisterNodeRequest
from flwr.supercore.constant import NodeStatus

from nnunet_fedmepd.deployment.certificates import node_key_pem
from nnunet_fedmepd.deployment.flower.control import Control


class NodeList(Control):
    """The nodes of one superlink."""

    def keep_only(self, keys: Mapping[str, bytes]) -> int:
        """Unregister every node whose key is none of these, and return how many; from then on they are refused.

        Args:
            keys: site -> public key of its node, in OpenSSH's format.
        """
        kept = {node_key_pem(key) for key in keys.values()}
        found = self._client.ListNodes(ListNodesRequest()).nodes_info
        others = [n for n in found if n.public_key not in kept and n.status != NodeStatus.UNREGISTERED]
        for node in others:
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))
        return len(others)
