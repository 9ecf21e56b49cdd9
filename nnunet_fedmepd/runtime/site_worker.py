"""Takes the turns of sites in one process: joins nnU-Net's training with the protocol's site."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.federation.messages import Anchors, HandOver, SiteUpdate, Update
from nnunet_fedmepd.federation.privacy import as_judged, protect
from nnunet_fedmepd.federation.sending import encode_update
from nnunet_fedmepd.federation.site import (
    SiteRules,
    SiteState,
    Turn,
    begin,
    finish,
    lead_update,
    shared_masks,
    site_update,
)
from nnunet_fedmepd.federation.state import flatten_anchors, flatten_site, restore_anchors, restore_site
from nnunet_fedmepd.federation.tensors import put, take
from nnunet_fedmepd.federation.wire import encode
from nnunet_fedmepd.networks.decoder_layers import decoder_layers
from nnunet_fedmepd.nnunet_plugin.run_plans import plans_for_run
from nnunet_fedmepd.nnunet_plugin.site_training import SiteTraining
from nnunet_fedmepd.runtime.layer_report import layer_report
from nnunet_fedmepd.runtime.orphans import end_forks_with_this_process
from nnunet_fedmepd.runtime.owned_results import are_finished, finish_results, reopen_results, results_folder
from nnunet_fedmepd.runtime.privacy_ledger import PrivacyError, PrivacyLedger
from nnunet_fedmepd.runtime.profiling import NoProfile, Stopwatch
from nnunet_fedmepd.runtime.run_folder import RunFolder

LOG = logging.getLogger(__name__)
# Of a turn's report: what no noise covers, and what therefore stays at a site that protects its updates.
_KEPT_TO_ITSELF = ("train_loss", "pseudo_dice")


@dataclass(frozen=True)
class SiteFiles:
    """Where a site's own things are.

    Attributes:
        dataset: full name of its nnU-Net dataset.
        plans: its plans.
        dataset_json: its dataset's description.
    """

    dataset: str
    plans: Path
    dataset_json: Path


@dataclass(frozen=True)
class TurnResult:
    """What a turn gave.

    Attributes:
        message: the update for the coordinator, as bytes; None where nothing is exchanged.
        report: for journal and progress: train_loss, pseudo_dice, seconds, filters, shared_filters; where filters can
            become personal also what `layer_report` says of the round before. Loss and Dice are NaN where the site
            protects its updates.
        was_done: whether the round had been trained before, and only its update was made anew.
    """

    message: bytes | None
    report: Mapping[str, Any]
    was_done: bool


class SiteWorker:
    """Holds the trainers of some sites; one of them at a time is on the device.

    Args:
        federation: the federation.
        run_folder: of the run.
        run_id: of the run.
        sites: site -> its files.
        device: to train on.
        profile: where measured times go.
    """

    def __init__(
        self,
        federation: Federation,
        run_folder: Path,
        run_id: str,
        sites: Mapping[str, SiteFiles],
        device: torch.device,
        profile: NoProfile,
    ) -> None:
        end_forks_with_this_process()  # nnU-Net's data workers would draw on, for nobody
        self.profile = profile
        self.federation, self.folder, self.run_id = federation, RunFolder(run_folder), run_id
        self.sites, self.device = sites, device
        self._trainings: dict[str, SiteTraining] = {}
        self._states: dict[str, SiteState] = {}
        self._reports: dict[str, dict[str, Any]] = {}
        self._ledgers: dict[str, PrivacyLedger] = {}

    def take_turn(
        self, name: str, round_number: int, hand_over: HandOver | None, advance: Callable[[], None] = lambda: None
    ) -> TurnResult:
        """Train a site in a round, save its state, and return its update; a round that is trained is not trained again.

        Args:
            name: the site.
            round_number: counted from 1.
            hand_over: from the coordinator; None where nothing is exchanged.
            advance: called after every training step.

        Raises:
            StateFileError: the site's state is damaged, or cannot be saved.
            PrivacyError: the update would spend more privacy than the federation file announces.
        """
        with self.profile.turn(name, round_number) as watch:
            self._wake(name, round_number)
            watch.lap("disk")
            was_done = self._states[name].round_number == round_number
            if not was_done:
                reopen_results(self._results_folder(name), self.run_id, self.federation)
                self._train(name, round_number, hand_over, advance, watch)
                self._save(name, round_number)
                watch.lap("disk")
            message = None if hand_over is None else self._message(name)
            watch.lap("codec")
        return TurnResult(message, self._outgoing_report(name), was_done)

    def finish(self, name: str, anchors: Anchors | None) -> Path:
        """Write a site's final model, calibrated by the final anchors, unless this run has; returns nnU-Net's folder.

        Args:
            name: the site.
            anchors: the federation's; None where anchors are off.
        """
        self._wake(name, self.federation.rounds)
        training, folder = self._trainings.pop(name), self._results_folder(name)
        if are_finished(folder, self.run_id):
            training.suspend()
            return folder
        if anchors is not None:
            training.calibrate_by(anchors.values, anchors.valid)
        training.finish()
        finish_results(folder, self.run_id, self.federation)
        return folder

    def _results_folder(self, name: str) -> Path:
        return results_folder(self.sites[name].dataset, self.federation)

    def _train(
        self,
        name: str,
        round_number: int,
        hand_over: HandOver | None,
        advance: Callable[[], None],
        watch: Stopwatch,
    ) -> None:
        federation, training, before = self.federation, self._trainings[name], self._states[name]
        rules, turn = self._rules(name), None
        if hand_over is not None:
            exchanged = training.exchanged()
            turn = begin(before, hand_over, {key: exchanged[key] for key in training.parts.fusion_decoder}, rules)
            training.load(turn.parameters)
            if hand_over.anchors is not None:
                training.calibrate_by(hand_over.anchors.values, hand_over.anchors.valid)
        if federation.method.optimizer_state == "reset":
            training.forget_moments()
        epochs = federation.epochs_per_round
        seed = derived_seed(federation.seed, name, round_number)

        def step_ends() -> None:
            watch.lap("bookkeeping")
            advance()

        watch.lap("protocol")
        with self.profile.training(name, training.trainer, watch):
            summary = training.train(epochs, (round_number - 1) * epochs, seed, step_ends)
        watch.lap("bookkeeping")
        if turn is None:
            state = replace(before, round_number=round_number)
        else:
            _, state = finish(turn, training.exchanged(), rules)
        self._states[name] = state
        self._reports[name] = {**asdict(summary), **self._filter_report(before, state, turn, rules)}
        watch.lap("protocol")
        if turn is not None and (federation.method.codec != "none" or federation.privacy_of(name) is not None):
            self._encode(name, turn.hand_over)
            watch.lap("codec")

    def _encode(self, name: str, hand_over: HandOver) -> None:
        """Encode the update while it is known what was handed over; the state keeps the bytes and what they lack."""
        codec, groups = self.federation.method.codec, self._trainings[name].filter_groups
        update = self._protected(name, self._update(name), hand_over)
        state = self._states[name]
        message, residual = encode_update(update, codec, hand_over, state.residual, groups)
        self._states[name] = replace(state, message=message, residual=residual)

    def _protected(self, name: str, update: Update, hand_over: HandOver) -> Update:
        """Clip and noise an update, and let the site judge by that; the update itself where it is not protected."""
        privacy, groups = self.federation.privacy_of(name), self._trainings[name].filter_groups
        if privacy is None:
            return update
        protected, norms = protect(update, hand_over, groups, privacy, self._ledger(name).secret)
        if isinstance(protected, SiteUpdate):
            self._states[name] = as_judged(self._states[name], protected, hand_over, groups)
        LOG.info(
            "%s keeps to itself: its update of round %d had norm %.3g, clipped to %.3g; norm of the noise %.3g",
            name,
            hand_over.round_number,
            norms.change,
            privacy.clipping_norm,
            norms.noise,
        )
        return protected

    def _ledger(self, name: str) -> PrivacyLedger:
        if name not in self._ledgers:
            self._ledgers[name] = PrivacyLedger(self.folder, name, self.federation.updates_of(name))
        return self._ledgers[name]

    def _message(self, name: str) -> bytes:
        state = self._states[name]
        if self.federation.privacy_of(name) is None:
            return state.message or encode(self._update(name))
        if not state.message:
            raise PrivacyError(f"Site {name!r} has no protected update of round {state.round_number} to give away.")
        self._ledger(name).enter(state.message)
        return state.message

    def _outgoing_report(self, name: str) -> dict[str, Any]:
        report = self._reports[name]
        if self.federation.privacy_of(name) is None:
            return report
        return report | dict.fromkeys(_KEPT_TO_ITSELF, math.nan)

    def _update(self, name: str) -> Update:
        training, state, rules = self._trainings[name], self._states[name], self._rules(name)
        encoders, trained = training.parts.encoders, training.exchanged()
        if not self._leads(name):
            return site_update(state, self.run_id, trained, encoders, rules)
        collected = training.anchors() if self.federation.method.anchors else None
        anchors = Anchors(collected.anchors, collected.valid) if collected else None
        return lead_update(state.round_number, self.run_id, trained, encoders, rules, anchors)

    def _wake(self, name: str, round_number: int) -> None:
        """Make a site's trainer, with the last state up to this round, unless it is there already."""
        if name in self._trainings and self._states[name].round_number <= round_number:
            return
        federation, files = self.federation, self.sites[name]
        plans = plans_for_run(json.loads(files.plans.read_text()), federation)
        newest = self.folder.site(name).newest(at_most=round_number)
        self._trainings[name] = training = SiteTraining(
            plans,
            federation.planning.configuration,
            federation.run.fold,
            json.loads(files.dataset_json.read_text()),
            self.device,
            self._leads(name) and federation.method.anchors,
            derived_seed(federation.seed, name, 0),
            self.folder.log_file(name),
            newest is not None,
        )
        self._states[name], self._reports[name] = SiteState(), {}
        if newest is not None:
            tensors, header = self.folder.site(name).load(newest)
            anchors = restore_anchors(take(tensors, "anchors"), header["membership"])
            training.restore(take(tensors, "training"), header["training"], anchors)
            self._states[name] = restore_site(take(tensors, "site"), header["site"])
            self._reports[name] = header["report"]

    def _save(self, name: str, round_number: int) -> None:
        training = self._trainings[name]
        tensors, header = training.flatten()
        site_tensors, site_header = flatten_site(self._states[name])
        anchor_tensors, membership = flatten_anchors(training.anchors())
        everything = put("training", tensors) | put("site", site_tensors) | put("anchors", anchor_tensors)
        report = self._reports[name]
        self.folder.site(name).save(
            round_number,
            everything,
            {"training": header, "site": site_header, "membership": membership, "report": report},
        )

    def _rules(self, name: str) -> SiteRules:
        federation, training = self.federation, self._trainings[name]
        partial = federation.method.decoder == "partial" and not self._leads(name)
        return SiteRules(
            name,
            training.n_cases,
            training.filter_groups,
            federation.personalization if partial else None,
            federation.method.site_weights == "cases",
        )

    def _leads(self, name: str) -> bool:
        return self.federation.method.lead_role == "lead" and self.federation.site_named(name).lead

    @staticmethod
    def _filter_report(before: SiteState, after: SiteState, turn: Turn | None, rules: SiteRules) -> dict[str, Any]:
        shared = shared_masks(after, rules.groups)
        report: dict[str, Any] = {
            "filters": sum(mask.numel() for mask in shared.values()),
            "shared_filters": sum(int(mask.sum()) for mask in shared.values()),
        }
        if turn is not None and rules.personalization is not None:
            shared_before = shared_masks(before, rules.groups)
            report |= layer_report(decoder_layers(rules.groups), shared_before, shared, turn.agreement)
        return report


def derived_seed(seed: int, site: str, round_number: int) -> int:
    """Return the seed of a site's round: every site and round draws its own numbers, whoever trains beside it."""
    digest = hashlib.sha256(f"{seed}/{site}/{round_number}".encode()).digest()
    return int.from_bytes(digest[:7], "little")
