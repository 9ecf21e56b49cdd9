"""The rounds of a federation, with no server and no engine: whoever takes the sites' turns is a `Workers`.

Every site's turn ends with its state on disk, every round with the coordinator's. Whatever is interrupted, the same
command goes on: turns that are done are not taken again, and the final weights are the same to the bit.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.federation.admission import Limits, UpdateRefusedError
from nnunet_fedmepd.federation.coordinator import CoordinatorState, Round, Rules
from nnunet_fedmepd.federation.messages import Anchors
from nnunet_fedmepd.federation.roster import Participant
from nnunet_fedmepd.federation.state import flatten_coordinator, restore_coordinator
from nnunet_fedmepd.maths.parameters import FilterSubset
from nnunet_fedmepd.networks.decoder_layers import decoder_layers
from nnunet_fedmepd.networks.fedmepd_net import SHARED_ENCODER
from nnunet_fedmepd.runtime.owned_results import are_finished, results_folder
from nnunet_fedmepd.runtime.preparation import Prepared
from nnunet_fedmepd.runtime.profiling import Stopwatch
from nnunet_fedmepd.runtime.progress import turn_line
from nnunet_fedmepd.runtime.run_folder import RunFolder
from nnunet_fedmepd.runtime.site_worker import TurnResult
from nnunet_fedmepd.runtime.workers import Missed, Workers, WorkerSettings, start_workers

LOG = logging.getLogger(__name__)
RETRY_SECONDS = 5.0


class SitesMissingError(FedMEPDError):
    """All rounds are done, but some sites did not write their models."""


class Observer(Protocol):
    """Who is told how a run goes on, to show it."""

    def round_begins(self, round_number: int) -> None: ...

    def turn_advances(self, site: str) -> None: ...

    def turn_ends(self, round_number: int, site: str) -> None: ...

    def models_begin(self) -> None: ...


class NoObserver:
    """Shows nothing."""

    def round_begins(self, round_number: int) -> None:
        pass

    def turn_advances(self, site: str) -> None:
        pass

    def turn_ends(self, round_number: int, site: str) -> None:
        pass

    def models_begin(self) -> None:
        pass


class LocalRun:
    """Runs the rounds of a federation.

    Args:
        prepared: the federation.
        run_id: of the run.
        folder: of the run; the caller holds its lock.
        observer: is told how it goes on.
        profiles: whether times are measured.
        start: makes who takes the turns.
        wait_limit_seconds: that sites which miss their turns are waited for, while too few have taken theirs.
    """

    def __init__(
        self,
        prepared: Prepared,
        run_id: str,
        folder: RunFolder,
        observer: Observer,
        profiles: bool = False,
        start: Callable[[WorkerSettings], Workers] = start_workers,
        wait_limit_seconds: float = 0.0,
    ) -> None:
        self.start, self.wait_limit_seconds = start, wait_limit_seconds
        self.federation, self.folder, self.observer = prepared.federation, folder, observer
        self.first_model, self.settings = prepared.model, prepared.settings
        self.worker_settings = WorkerSettings(self.federation, folder.path, run_id, prepared.sites, profiles)
        self.rules = aggregation_rules(self.federation, run_id)
        self.participants = participants(self.federation)
        self._journal = {(line["round"], line["site"]) for line in folder.journal() if "train_loss" in line}
        self._shared_masks: dict[str, Any] = {}

    def run(self) -> None:
        """Run what is left of the federation.

        Raises:
            TooFewSitesError: a round did not get its minimum of updates.
            SitesMissingError: sites did not write their models.
            StateFileError: a state is damaged, or cannot be saved.
        """
        self.folder.write_journal(self.folder.journal())  # drops a line that a crash cut off
        self.folder.write_layers(decoder_layers(self.first_model.groups))
        state = self._restored()
        workers, profile = self.start(self.worker_settings), self.worker_settings.profile()
        try:
            for number in range(state.round_number + 1, self.federation.rounds + 1):
                self.observer.round_begins(number)
                with profile.turn("coordinator", number) as watch:
                    state = self._round(state, workers, watch)
                    self.folder.coordinator.save(number, *flatten_coordinator(state))
                    watch.lap("disk")
            self._finish(state, workers)
        finally:
            workers.close()

    def _round(self, state: CoordinatorState, workers: Workers, watch: Stopwatch) -> CoordinatorState:
        number = state.round_number + 1
        here = [p for p in self.participants if number not in self.federation.site_named(p.name).absent_rounds]
        current = Round(state, here, self.rules)
        self._take_all_turns(current, [p.name for p in here if not p.is_lead], workers, watch)
        if self.federation.exchanges_in(number):
            current.aggregate()
            watch.lap("protocol")
        self._take_all_turns(current, [p.name for p in here if p.is_lead], workers, watch)
        state = current.close()
        watch.lap("protocol")
        return state

    def _take_all_turns(self, current: Round, sites: list[str], workers: Workers, watch: Stopwatch) -> None:
        missed = self._patiently(
            f"round {current.number}",
            sites,
            lambda asked: self._take_turns(current, asked, workers, watch),
            lambda: self._has_enough(current, sites),
        )
        for site, why in missed.items():
            LOG.warning("round %d goes on without %s: %s", current.number, site, why.reason)
            kind = "refused" if why.refused else "missed"
            self.folder.append_journal({"round": current.number, "site": site, kind: why.reason})

    def _has_enough(self, current: Round, sites: list[str]) -> bool:
        """Return whether a round goes on: by its updates or, where nothing is exchanged, by the turns taken."""
        if self.federation.exchanges_in(current.number):
            return current.has_enough()
        n_taken = sum((current.number, site) in self._journal for site in sites)
        return n_taken >= min(self.rules.minimum_sites, len(sites))

    def _patiently(
        self,
        what: str,
        sites: list[str],
        ask: Callable[[list[str]], dict[str, Missed]],
        has_enough: Callable[[], bool],
    ) -> dict[str, Missed]:
        """Ask sites, and those that miss it again while there are too few; returns who misses it in the end, and why.

        Args:
            what: is waiting, for the log.
            sites: to ask.
            ask: returns who misses it.
            has_enough: whether it goes on without those.
        """
        until, told = time.monotonic() + self.wait_limit_seconds, set[str]()
        missed = ask(sites)
        while missed and not has_enough() and time.monotonic() < until:
            if set(missed) != told:
                LOG.warning("%s waits for %s", what, named(missed))
                told = set(missed)
            time.sleep(RETRY_SECONDS)
            missed = ask(list(missed))
        return missed

    def _take_turns(self, current: Round, sites: list[str], workers: Workers, watch: Stopwatch) -> dict[str, Missed]:
        """Let sites take their turns; returns who misses it."""
        exchanges = self.federation.exchanges_in(current.number)
        hand_overs = {
            site: (lambda site=site: current.hand_over(site, self._shared_masks.get(site)) if exchanges else None)
            for site in sites
        }
        self._write_status("running", current.number, sites)
        done: list[str] = []
        missed: dict[str, Missed] = {}
        for site, result in workers.take_turns(current.number, hand_overs, self.observer.turn_advances):
            watch.lap("waiting")
            if isinstance(result, Missed):
                missed[site] = result
                continue
            if result.message is not None:
                self._receive(current, site, result.message)
                watch.lap("codec")
            self._report(current.number, site, result)
            done.append(site)
            self._write_status("running", current.number, _others(sites, done))
            watch.lap("disk")
        return missed

    def _receive(self, current: Round, site: str, message: bytes) -> None:
        try:
            update = current.receive(site, message)
            if isinstance(update.decoder, FilterSubset):
                self._shared_masks[site] = update.decoder.masks
        except UpdateRefusedError as error:
            LOG.warning("round %d: %s", current.number, error)
            self.folder.append_journal({"round": current.number, "site": site, "refused": error.reason})

    def _report(self, number: int, site: str, result: TurnResult) -> None:
        report = {**result.report, "bytes_sent": len(result.message or b"")}
        if (number, site) not in self._journal:
            self._journal.add((number, site))
            self.folder.append_journal({"round": number, "site": site, "time": time.time(), **report})
        LOG.info(turn_line(number, self.federation.rounds, site, report))
        self.observer.turn_ends(number, site)

    def _finish(self, state: CoordinatorState, workers: Workers) -> None:
        anchors = None
        if state.anchors is not None and self.rules.anchors_travel:
            anchors = Anchors(state.anchors.anchors, state.anchors.valid)
        trained = {site for _, site in self._journal}
        names = [p.name for p in self.participants if p.name in trained]
        written: dict[str, str] = {}
        were_complete = self._are_complete(names)

        def tell_whose_are_left() -> None:
            if not were_complete:  # else the run stays finished, even if this is interrupted
                self._write_status("ending", self.federation.rounds, _others(names, written))

        def finish(sites: list[str]) -> dict[str, Missed]:
            missed: dict[str, Missed] = {}
            for site, result in workers.finish(sites, anchors):
                if isinstance(result, Missed):
                    missed[site] = result
                else:
                    LOG.info("model of %s: %s", site, result)
                    written[site] = result
                    tell_whose_are_left()
            return missed

        validation = ", each with nnU-Net's validation" if self.settings.final_validation else ""
        LOG.info("all rounds are done; writing the models of %s%s", ", ".join(names), validation)
        self.observer.models_begin()
        tell_whose_are_left()
        if missed := self._patiently("the end of the run", names, finish, lambda: False):
            raise SitesMissingError(
                f"All rounds are done, but these sites did not write their models: {named(missed)}. Start the run "
                "again when they are back."
            )
        self._write_status("finished", self.federation.rounds, [], written)

    def _are_complete(self, names: Sequence[str]) -> bool:
        """Return whether these sites are on this machine and their models are written."""
        settings = self.worker_settings
        return all(
            name in settings.sites
            and are_finished(results_folder(settings.sites[name].dataset, self.federation), settings.run_id)
            for name in names
        )

    def _restored(self) -> CoordinatorState:
        newest = self.folder.coordinator.newest()
        if newest is None:
            return CoordinatorState(0, self.first_model)
        return restore_coordinator(*self.folder.coordinator.load(newest), self.first_model)

    def _write_status(
        self, state: str, number: int, busy: Sequence[str], results: Mapping[str, str] | None = None
    ) -> None:
        self.folder.write_status(
            {
                "name": self.federation.name,
                "state": state,
                "process": os.getpid(),
                "round": number,
                "rounds": self.federation.rounds,
                "sites": [p.name for p in self.participants],
                "training": list(busy),
                "updated": time.time(),
                "results": dict(results or {}),
            }
        )


def _others(names: Sequence[str], done: Collection[str]) -> list[str]:
    return [name for name in names if name not in done]


def named(missed: Mapping[str, Missed]) -> str:
    """Return who missed something, and why, in one line."""
    return "; ".join(f"{site}: {why.reason}" for site, why in sorted(missed.items()))


def participants(federation: Federation) -> list[Participant]:
    """Return who trains, in the order of the file; sites come before leads in every round."""
    canonical, role = federation.modalities, federation.method.lead_role
    shared = federation.method.encoder == "shared"
    return [
        Participant(
            site.name,
            (SHARED_ENCODER,) if shared else tuple(site.modalities or canonical),
            site.lead and role == "lead",
        )
        for site in federation.site
        if not (site.lead and role == "none")
    ]


def aggregation_rules(federation: Federation, run_id: str) -> Rules:
    """Return how the coordinator of a federation aggregates."""
    method = federation.method
    largest_weight = 10_000_000.0 if method.site_weights == "cases" else federation.personalization.max_ratio
    return Rules(
        run_id,
        decoder_travels=method.decoder != "personal",
        anchors_travel=method.anchors,
        lead_share=method.lead_share,
        by_cases=method.site_weights == "cases",
        minimum_sites=federation.run.minimum_sites,
        limits=Limits(max(1.0, largest_weight), federation.run.maximum_norm),
    )
