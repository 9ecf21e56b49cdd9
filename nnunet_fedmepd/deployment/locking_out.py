"""Makes what runs at the coordinator act by its kit at once: whoever is not in the kit any more is locked out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from nnunet_fedmepd.deployment.flower.node_list import NodeList
from nnunet_fedmepd.deployment.flower.programs import superlink
from nnunet_fedmepd.deployment.kit import CoordinatorKit
from nnunet_fedmepd.deployment.processes import ProcessError, Processes, id_file, nginx_program
from nnunet_fedmepd.deployment.starting import prepare, wait_for_superlink, write_coordinator_configuration


def lock_out(kit: CoordinatorKit, report: Callable[[str], None]) -> bool:
    """Unregister nodes whose keys are not in the kit, and let the proxy, where it runs, read its configuration again.

    Args:
        kit: of the coordinator.
        report: told a line when the engine ends unasked.

    Returns:
        Whether the coordinator is up, on this machine.

    Raises:
        ProcessError: the engine is there but does not answer, does not start, or the proxy refuses its configuration.
    """
    write_coordinator_configuration(kit)
    keys = {site.name: kit.node_key(site.name).read_bytes() for site in kit.federation.site}
    nodes = NodeList(kit)
    try:
        if is_up := nodes.is_ready():
            nodes.keep_only(keys)
            _reload_proxy(kit)
        elif (kit.folder / "flower.db").is_file():  # what it registered outlives it
            prepare(kit, {"superlink_port": kit.superlink_port})
            with Processes([superlink(kit)], kit.folder, report).running() as processes:
                wait_for_superlink(nodes, processes)
                nodes.keep_only(keys)
    finally:
        nodes.close()
    return is_up


def _reload_proxy(kit: CoordinatorKit) -> None:
    if "proxy" not in json.loads(id_file(kit.folder).read_bytes()):
        return  # it is about to be started, by the new configuration
    command = [nginx_program(), "-p", ".", "-c", "nginx.conf", "-e", "logs/proxy_error.log", "-s", "reload"]
    done = subprocess.run(command, cwd=kit.folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ProcessError(f"The proxy does not take its new configuration; end the coordinator. {done.stderr[-500:]}")
