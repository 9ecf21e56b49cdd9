"""Who takes the sites' turns: this process, or several, each with a device of its own."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, get_start_method, set_start_method
from pathlib import Path
from typing import Protocol

import torch

from nnunet_fedmepd.config.federation import Federation, SiteTable
from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.federation.messages import Anchors, HandOver
from nnunet_fedmepd.federation.wire import decode, encode
from nnunet_fedmepd.runtime.devices import claim_device, devices_of_workers, load_data_in_the_training_process
from nnunet_fedmepd.runtime.orphans import end_with_parent
from nnunet_fedmepd.runtime.profiling import NoProfile, Profile
from nnunet_fedmepd.runtime.site_worker import SiteFiles, SiteWorker, TurnResult

Advance = Callable[[str], None]
# Between our own processes: no stranger sends anything here.
_NO_LIMIT = 2**62
# Any other GPU must be made the only visible one, in a process that has seen none before.
_TAKEN_AS_THEY_ARE = ("cpu", "mps", "cuda", "cuda:0")


@dataclass(frozen=True)
class WorkerSettings:
    """What a process needs to take turns; it can be sent to a new process.

    Attributes:
        federation: the federation.
        run_folder: of the run.
        run_id: of the run.
        sites: site -> its files.
        profiles: whether times are measured.
    """

    federation: Federation
    run_folder: Path
    run_id: str
    sites: Mapping[str, SiteFiles]
    profiles: bool = False

    def profile(self) -> NoProfile:
        """Return where a process puts its times."""
        return Profile(self.run_folder / "profile") if self.profiles else NoProfile()


@dataclass(frozen=True)
class Missed:
    """A site could not be asked, or gave no answer that can be used; never one of this machine.

    Attributes:
        reason: why.
        refused: whether it answered, and the answer was refused.
    """

    reason: str
    refused: bool = False


class Workers(Protocol):
    """Takes turns; results come in any order."""

    def take_turns(
        self, round_number: int, hand_overs: Mapping[str, Callable[[], HandOver | None]], advance: Advance
    ) -> Iterator[tuple[str, TurnResult | Missed]]:
        """Yield the result of each site's turn as it comes; hand-overs may be made long before their turns."""
        ...

    def finish(self, sites: Sequence[str], anchors: Anchors | None) -> Iterator[tuple[str, str | Missed]]:
        """Yield where each site's final model is, as it is written."""
        ...

    def close(self) -> None:
        """End what runs in the background."""
        ...


class OwnProcess:
    """Takes all turns in this process, one after the other."""

    def __init__(self, settings: WorkerSettings, device: str) -> None:
        self._worker = _build_worker(settings, device)

    def take_turns(
        self, round_number: int, hand_overs: Mapping[str, Callable[[], HandOver | None]], advance: Advance
    ) -> Iterator[tuple[str, TurnResult]]:
        for site, hand_over in hand_overs.items():
            yield site, self._worker.take_turn(site, round_number, hand_over(), lambda site=site: advance(site))  # type: ignore[misc]

    def finish(self, sites: Sequence[str], anchors: Anchors | None) -> Iterator[tuple[str, str]]:
        for site in sites:
            yield site, str(self._worker.finish(site, anchors))

    def close(self) -> None:
        pass


class ProcessPool:
    """Takes turns in long-lived processes, one a device; a site stays with its process, where its trainer lives.

    Args:
        settings: for every process.
        devices: one entry a process; an entry may occur several times.
    """

    def __init__(self, settings: WorkerSettings, devices: Sequence[str]) -> None:
        share = max(1, (os.cpu_count() or 1) // len(devices))
        ours = (share, get_start_method(), os.getpid())
        self._processes = [
            ProcessPoolExecutor(1, get_context("spawn"), _start_process, (settings, device, *ours))
            for device in devices
        ]
        self._process_ids = [process.submit(os.getpid) for process in self._processes]
        self._home = {name: self._processes[i] for name, i in homes(settings.federation, len(devices)).items()}

    def take_turns(
        self, round_number: int, hand_overs: Mapping[str, Callable[[], HandOver | None]], advance: Advance
    ) -> Iterator[tuple[str, TurnResult]]:
        futures: dict[Future, str] = {}
        for site, make in hand_overs.items():
            message = make()
            data = None if message is None else encode(message)
            futures[self._home[site].submit(_take_turn, site, round_number, data)] = site
        for future in as_completed(futures):
            yield futures[future], self._result(future, futures[future])

    def finish(self, sites: Sequence[str], anchors: Anchors | None) -> Iterator[tuple[str, str]]:
        arrays = None if anchors is None else (tuple(v.numpy() for v in anchors.values), anchors.valid.numpy())
        futures = {self._home[site].submit(_finish, site, arrays): site for site in sites}
        for future in as_completed(futures):
            yield futures[future], self._result(future, futures[future])

    def close(self) -> None:
        for started in self._process_ids:
            if started.done() and not started.exception():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(started.result(), signal.SIGTERM)  # every state on disk is whole at any moment
        for process in self._processes:
            process.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _result(future: Future, site: str):  # type: ignore[no-untyped-def]  # of whatever was submitted
        try:
            return future.result()
        except BrokenProcessPool:
            raise FedMEPDError(
                f"The process that trained site {site!r} died: killed, or out of memory. Every finished turn is saved; "
                "start the same command again, with fewer workers if memory was short."
            ) from None


def homes(federation: Federation, n_processes: int) -> dict[str, int]:
    """Return site -> process, such that all processes have about as much to do in a round.

    A turn takes about as long as two modalities plus those that the site owns. Leads take theirs after the sites, so
    they are shared out by themselves.
    """
    home: dict[str, int] = {}
    leads_apart = federation.method.lead_role == "lead"
    for apart in (False, True):
        loads = [0] * n_processes
        group = [site for site in federation.site if (site.lead and leads_apart) is apart]
        for site in sorted(group, key=_cost, reverse=True):
            home[site.name] = loads.index(min(loads))
            loads[home[site.name]] += _cost(site)
    return home


def _cost(site: SiteTable) -> int:
    return 2 + len(site.modalities or ())


def start_workers(settings: WorkerSettings) -> Workers:
    """Return what the federation file asks for.

    Raises:
        ConfigurationError: this machine has no such device, or workers would share a GPU unasked.
    """
    devices = devices_of_workers(settings.federation.run)
    if all(device == "cpu" for device in devices):
        load_data_in_the_training_process()
    if len(devices) == 1 and devices[0] in _TAKEN_AS_THEY_ARE:
        return OwnProcess(settings, devices[0])
    return ProcessPool(settings, devices)


_worker: SiteWorker | None = None


def _start_process(settings: WorkerSettings, device: str, n_threads: int, start_method: str, parent: int) -> None:
    """Prepare a new process; its own children, nnU-Net's data workers, start as those of the main process would."""
    global _worker  # noqa: PLW0603  # one worker a process, kept between turns
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends this one
    set_start_method(start_method, force=True)  # else they are spawned, and import everything anew
    end_with_parent(parent)  # an orphan would train on, for nobody
    _worker = _build_worker(settings, claim_device(device, n_threads))


def _build_worker(settings: WorkerSettings, device: str) -> SiteWorker:
    federation, sites = settings.federation, settings.sites
    profile = settings.profile()
    return SiteWorker(federation, settings.run_folder, settings.run_id, sites, torch.device(device), profile)


def _take_turn(site: str, round_number: int, data: bytes | None) -> TurnResult:
    assert _worker is not None  # the process was started by _start_process
    hand_over = None if data is None else decode(data, _NO_LIMIT)
    return _worker.take_turn(site, round_number, hand_over)  # type: ignore[arg-type]


def _finish(site: str, arrays) -> str:  # type: ignore[no-untyped-def]  # numpy's arrays, or None
    assert _worker is not None  # the process was started by _start_process
    anchors = None
    if arrays is not None:
        anchors = Anchors(tuple(torch.from_numpy(v) for v in arrays[0]), torch.from_numpy(arrays[1]))
    return str(_worker.finish(site, anchors))
