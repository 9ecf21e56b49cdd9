"""The coordinator of a deployment: sites join, plan together, and run the rounds, over whatever channel."""

from __future__ import annotations

import contextlib
import json
import logging

from rich.console import Console

from nnunet_fedmepd.deployment.calls import Calls
from nnunet_fedmepd.deployment.channel import Channel
from nnunet_fedmepd.deployment.joining import load_joined, prepared_by, roll_call, save_joined
from nnunet_fedmepd.deployment.kit import CoordinatorKit
from nnunet_fedmepd.deployment.planning import plan_over
from nnunet_fedmepd.deployment.remote_sites import RemoteSites
from nnunet_fedmepd.deployment.requests import End, Ended, Joined, federation_digest
from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.federation.storage import StateFileError, write_atomically
from nnunet_fedmepd.runtime.local import LocalRun, NoObserver
from nnunet_fedmepd.runtime.progress import logging_to
from nnunet_fedmepd.runtime.run_folder import RunFolder, flat_differences, read_json
from nnunet_fedmepd.runtime.running import identity

LOG = logging.getLogger(__name__)
_SECONDS_TO_SAY_GOODBYE = 30.0


def coordinate(kit: CoordinatorKit, channel: Channel) -> None:
    """Run a federation to its end, or what is left of it.

    Args:
        kit: of the coordinator.
        channel: to the sites.

    Raises:
        ConfigurationError: the sites do not fit together, or the federation file.
        RunError: another process runs here, or the folder holds another run.
        SitesMissingError, TooFewSitesError: sites were waited for in vain; started again, it goes on.
        StateFileError: a state is damaged, or cannot be saved.
    """
    folder = RunFolder(kit.run_folder)
    with folder.locked(), logging_to(folder.path / "federation.log", Console(soft_wrap=True, highlight=False)):
        try:
            _write_error(folder, None)
            _run(kit, channel, folder)
        except FedMEPDError as error:
            LOG.error("%s", error)
            _write_error(folder, str(error))
            raise


def why_stopped(folder: RunFolder) -> str | None:
    """Return why a run stopped on purpose; it can be gone on with. None where it runs, has ended, or was killed."""
    file = folder.path / "stopped.json"
    return str(read_json(file)["error"]) if file.is_file() else None


def _write_error(folder: RunFolder, error: str | None) -> None:
    file = folder.path / "stopped.json"
    file.unlink(missing_ok=True)
    if error is not None:
        with contextlib.suppress(StateFileError):  # a full disk may be what it is about
            write_atomically(file, json.dumps({"error": error}).encode())


def _run(kit: CoordinatorKit, channel: Channel, folder: RunFolder) -> None:
    wait_limit = 60 * kit.wait_limit_minutes
    calls = Calls(channel, federation_digest(kit.federation), 60 * kit.turn_limit_minutes, wait_limit)
    prepared = prepared_by(kit.federation, _joined(kit, calls, folder))
    run_id = folder.open(identity(prepared), flat_differences)
    sites = RemoteSites(calls, run_id, prepared.plan_digests, prepared.model)
    LocalRun(prepared, run_id, folder, NoObserver(), start=lambda settings: sites, wait_limit_seconds=wait_limit).run()
    goodbye = Calls(channel, calls.federation, _SECONDS_TO_SAY_GOODBYE, 0)
    for site, _ in goodbye.each({site.name: End for site in kit.federation.site}, Ended):
        LOG.info("site %s: the federation is done", site)


def _joined(kit: CoordinatorKit, calls: Calls, folder: RunFolder) -> dict[str, Joined]:
    """Return who joined, from the run's folder where it is known; then sites may be away."""
    file = folder.path / "sites.json"
    if file.is_file():
        return load_joined(file)
    joined = roll_call(calls, kit.federation)
    if kit.plan:
        plan_over(calls, kit.federation, joined)
        joined = roll_call(calls, kit.federation)
    prepared_by(kit.federation, joined)  # what does not fit is not written down
    save_joined(file, joined)
    return joined
