"""What a site answers to the coordinator's requests; everything that leaves it goes through here."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from nnunet_fedmepd import __version__
from nnunet_fedmepd.deployment.kit import SiteKit
from nnunet_fedmepd.deployment.received_plans import check_received_plans
from nnunet_fedmepd.deployment.requests import (
    Adopt,
    Adopted,
    End,
    Ended,
    ExchangeError,
    Failed,
    Join,
    Joined,
    ModelWritten,
    PlannedNetwork,
    Reply,
    ReportFirst,
    ReportSecond,
    TakeTurn,
    TurnTaken,
    WriteModel,
    decode_request,
    federation_digest,
)
from nnunet_fedmepd.errors import ConfigurationError, FedMEPDError
from nnunet_fedmepd.federation.messages import HandOver
from nnunet_fedmepd.federation.wire import MessageError, decode
from nnunet_fedmepd.maths.planning_reports import FirstReport, SecondReport
from nnunet_fedmepd.nnunet_plugin.planner import plans_name_of
from nnunet_fedmepd.nnunet_plugin.registration import register
from nnunet_fedmepd.runtime.owned_results import claim_results
from nnunet_fedmepd.runtime.planned_site import planned_site, site_files
from nnunet_fedmepd.runtime.planning import PlanningSite, case_workers, open_site_dataset, planning_resolution
from nnunet_fedmepd.runtime.profiling import NoProfile
from nnunet_fedmepd.runtime.progress import turn_line
from nnunet_fedmepd.runtime.site_worker import SiteFiles, SiteWorker

LOG = logging.getLogger(__name__)
REQUEST_LIMIT = 4 * 2**30  # bytes of a request, and of what it unpacks to
_RUN_ID = re.compile(r"[0-9a-f]{32}")


class SiteAnswers:
    """Answers for one site; its trainer lives on from round to round.

    Args:
        kit: of the site; nnU-Net's environment variables are set.
        device: to train on.
        overwrite: replace models of other trainings in nnU-Net's results folder.

    Raises:
        ConfigurationError, DatasetError: the site's dataset is not what the federation file says.
    """

    def __init__(self, kit: SiteKit, device: torch.device, overwrite: bool = False) -> None:
        register()
        self.name, self.device, self.overwrite = kit.site, device, overwrite
        self.digest, self.state_folder = federation_digest(kit.federation), kit.state_folder
        self.federation = kit.own_federation
        table = self.federation.site_named(self.name)
        dataset, planning = open_site_dataset(table, self.federation.vocabulary), self.federation.planning
        self.n_processes = int(os.environ.get("nnUNet_def_n_proc", min(8, os.cpu_count() or 1)))
        self.planning_site = PlanningSite(self.name, dataset, planning_resolution(planning), self.n_processes)
        self.is_done = False
        self._run_id, self._worker, self._plans = "", None, ""  # type: tuple[str, SiteWorker | None, str]

    def answer(self, data: bytes) -> Reply:
        """Return the answer to a request's bytes; what fails is logged here, and only its kind is told."""
        try:
            request = decode_request(data, self.digest)
            return self._answers[type(request)](request)
        except ExchangeError as error:
            LOG.error("A request is refused: %s", error)
            return Failed(type(error).__name__, str(error))
        except Exception as error:  # a full memory or disk shows itself as whatever the libraries make of it
            if isinstance(error, FedMEPDError):
                LOG.error("%s", error)
            else:
                LOG.exception("A request failed.")
            self._worker = None  # what it holds may not be saved: the site goes on from its last state
            return Failed(type(error).__name__)

    @property
    def _answers(self) -> dict[type, Callable[[Any], Reply]]:
        return {
            Join: self._join,
            ReportFirst: self._report_first,
            ReportSecond: self._report_second,
            Adopt: self._adopt,
            TakeTurn: self._take_turn,
            WriteModel: self._write_model,
            End: self._end,
        }

    def _join(self, request: Join) -> Joined:
        joined = Joined(__version__, self.planning_site.terms(), self._planned())
        self._tell(
            "to join",
            [
                f"version: {joined.version}",
                *joined.terms.describe(),
                "the planned network, if any, and digests of the plans",
            ],
        )
        return joined

    def _report_first(self, request: ReportFirst) -> FirstReport:
        report = self.planning_site.first_report()
        self._tell("in phase 1 of planning", report.describe())
        return report

    def _report_second(self, request: ReportSecond) -> SecondReport:
        report = self.planning_site.second_report(request.announced)
        self._tell("in phase 2 of planning", report.describe())
        return report

    def _adopt(self, request: Adopt) -> Adopted:
        planning = self.federation.planning
        check_received_plans(request.plans, plans_name_of(planning.planner))
        with case_workers(self.n_processes) as map_cases:
            adopted = self.planning_site.adopt(request.plans, planning.configuration, map_cases)
        planned = self._planned()
        if planned is None:
            raise ConfigurationError("Plans were taken over, but the preprocessed data are not complete.")
        return Adopted(planned, adopted.plans_written, adopted.n_preprocessed)

    def _take_turn(self, request: TakeTurn) -> TurnTaken:
        number = request.round_number
        if not 1 <= number <= self.federation.rounds:
            raise ExchangeError(f"round {number} is none of the federation's {self.federation.rounds}")
        hand_over = _hand_over(request.body) if request.body else None
        if (hand_over is None) == self.federation.exchanges_in(number):
            raise ExchangeError("a turn is asked for with a hand-over where there is none to be, or without one")
        if hand_over is not None and (hand_over.run_id, hand_over.round_number) != (request.run_id, number):
            raise ExchangeError("a hand-over belongs to another run or round than its request")
        worker = self._worker_for(request.run_id, request.plans)
        result = worker.take_turn(self.name, number, hand_over)
        report = {**result.report, "bytes_sent": len(result.message or b"")}
        LOG.info("%s", turn_line(number, self.federation.rounds, self.name, report))
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in result.report.items()}
        return TurnTaken(result.was_done, **values, body=result.message or b"")

    def _write_model(self, request: WriteModel) -> ModelWritten:
        worker = self._worker_for(request.run_id, request.plans)
        LOG.info("All rounds are done; writing the model")
        folder = worker.finish(self.name, _hand_over(request.body).anchors if request.body else None)
        LOG.info("The model is in %s", folder)
        return ModelWritten()

    def _end(self, request: End) -> Ended:
        self.is_done = True
        return Ended()

    def _worker_for(self, run_id: str, plans: str) -> SiteWorker:
        """Return the worker of a run; that of an earlier run is forgotten, its files stay."""
        if not _RUN_ID.fullmatch(run_id):
            raise ExchangeError("a run's id is no id")
        if self._worker is None or (run_id, plans) != (self._run_id, self._plans):
            planned = self._planned()
            if planned is None or planned.digest != plans:
                raise ExchangeError("the plans of this site are not those that it joined the run with")
            files = self._files()
            claim_results(self.federation, [files.dataset], run_id, self.overwrite)
            self._run_id, self._plans = run_id, plans
            own = {self.name: files}
            self._worker = SiteWorker(
                self.federation, self.state_folder / run_id, run_id, own, self.device, NoProfile()
            )
        return self._worker

    def _planned(self) -> PlannedNetwork | None:
        try:
            found = planned_site(self.federation.site_named(self.name), self.federation)
        except ConfigurationError as error:
            LOG.info("not planned yet: %s", error)
            return None
        return PlannedNetwork(
            found.plans_digest(),
            found.architecture(),
            _digests(found.common_content()),
            _digests(found.channel_contents()),
        )

    def _files(self) -> SiteFiles:
        return site_files(self.name, self.federation)

    def _tell(self, when: str, lines: list[str]) -> None:
        LOG.info("what leaves this site %s:\n  %s", when, "\n  ".join(lines))


def _digests(contents: Mapping[str, Any]) -> dict[str, str]:
    return {key: hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest() for key, own in contents.items()}


def _hand_over(body: bytes) -> HandOver:
    try:
        message = decode(body, REQUEST_LIMIT)
    except MessageError as error:
        raise ExchangeError(str(error)) from None
    if not isinstance(message, HandOver):
        raise ExchangeError(f"expected a hand-over, found a {type(message).__name__}")
    return message
