"""The coordinator's part of a round: hand over, add up, aggregate, let the leads train, close (Liu et al. 2025, 3.4).

    round = Round(state, roster, rules)
    for every site:  round.hand_over(site) -> it trains -> round.receive(site, bytes)
    round.aggregate()
    for every lead:  round.hand_over(lead) -> it trains -> round.receive(lead, bytes)
    state = round.close()

The coordinator holds one total, whatever the number of sites; no site's update is kept, and the result is the same to
the last bit in whatever order updates arrive. It needs no data: without leads the aggregate is the next model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.federation.admission import Expectation, Limits, UpdateRefusedError
from nnunet_fedmepd.federation.messages import Anchors, HandOver, LeadUpdate, SiteUpdate, Update
from nnunet_fedmepd.federation.packing import Reference
from nnunet_fedmepd.federation.roster import Model, Participant
from nnunet_fedmepd.federation.wire import MessageError, decode
from nnunet_fedmepd.maths.aggregation import (
    RunningSum,
    decoder_mean,
    encoder_contribution,
    encoder_means,
    filter_contribution,
    share_denominators,
)
from nnunet_fedmepd.maths.anchors import AnchorState, CaseMeans, update_anchors
from nnunet_fedmepd.maths.parameters import ParameterError, select, uniform_masks


class TooFewSitesError(FedMEPDError):
    """A round cannot end: fewer updates than the federation asks for."""


@dataclass(frozen=True)
class Rules:
    """How the coordinator aggregates.

    Attributes:
        run_id: of the run.
        decoder_travels: False keeps decoders personal (FedMEMA).
        anchors_travel: whether leads' anchors are handed over.
        lead_share: lambda; what the decoder keeps of itself in aggregation while leads train.
        by_cases: whether a site counts by its cases in the encoders' mean, instead of equally.
        minimum_sites: updates needed to aggregate.
        limits: bounds of updates.
    """

    run_id: str
    decoder_travels: bool = True
    anchors_travel: bool = True
    lead_share: float = 0.3
    by_cases: bool = False
    minimum_sites: int = 1
    limits: Limits = field(default_factory=lambda: Limits(maximum_importance=1000.0))


@dataclass(frozen=True)
class CoordinatorState:
    """Everything that the coordinator keeps between rounds.

    Attributes:
        round_number: last round that was closed; 0 before the first.
        model: encoders and decoder after it.
        anchors: the leads' anchors; None while there are none. The members of an anchor are leads' anchors,
            `lead/number`.
        share_denominators: filter group -> (F,), see `maths.aggregation.share_denominators`.
        n_cases: site -> training cases, as last reported.
        counted: sites whose update entered the sums of that round.
    """

    round_number: int
    model: Model
    anchors: AnchorState | None = None
    share_denominators: Mapping[str, Tensor] = field(default_factory=dict)
    n_cases: Mapping[str, int] = field(default_factory=dict)
    counted: frozenset[str] = frozenset()


class Round:
    """One round, from the state before it to the state after it.

    Args:
        state: after the last round.
        participants: who takes part in this round.
        rules: of aggregation.
    """

    def __init__(self, state: CoordinatorState, participants: Iterable[Participant], rules: Rules) -> None:
        self.state, self.rules = state, rules
        self.participants = {participant.name: participant for participant in participants}
        self.number = state.round_number + 1
        self.counted: set[str] = set()
        self._model, self._aggregated = state.model, False
        self._n_cases = dict(state.n_cases)
        self._encoders, self._filters = RunningSum(), RunningSum()
        self._denominators: dict[str, Tensor] = {}
        self._lead_encoders, self._lead_filters = RunningSum(), RunningSum()
        self._lead_anchors: dict[str, Anchors] = {}

    def hand_over(self, name: str, shared: Mapping[str, Tensor] | None = None) -> HandOver:
        """Return what a participant starts its turn from: the last round's model, or the aggregate for a lead.

        Args:
            name: the participant.
            shared: filter group -> (F,) bool, filters that are not personal at the site; None: all.
        """
        participant, groups = self.participants[name], self._model.groups
        decoder = None
        if participant.is_lead or self.rules.decoder_travels:
            decoder = select(self._model.decoder, groups, shared or uniform_masks(groups, True))
        anchors = self.state.anchors if self.rules.anchors_travel else None
        return HandOver(
            self.rules.run_id,
            self.number,
            self._model.encoders_of(participant.modalities),
            decoder,
            Anchors(anchors.anchors, anchors.valid) if anchors else None,
            self.state.share_denominators,
            sum(self.state.n_cases.values()),
            name in self.state.counted,
        )

    def add(self, update: Update) -> None:
        """Check an update and add it to the sums.

        Raises:
            UpdateRefusedError: the update is not what it should be; the sums are as before.
        """
        self._expectation().check(update)
        if update.site in self.counted:
            raise UpdateRefusedError(update.site, f"its update of round {self.number} is counted already")
        try:
            if isinstance(update, LeadUpdate):
                self._add_lead(update)
            else:
                self._add_site(update)
        except ParameterError as error:
            raise UpdateRefusedError(update.site, str(error)) from None
        self.counted.add(update.site)

    def receive(self, site: str, data: bytes) -> Update:
        """Decode what a site sent, check it and add it to the sums; returns it.

        Raises:
            UpdateRefusedError: it is not an update of this site, or not what it should be; the sums are as before.
        """
        try:
            update = decode(data, self.limit_bytes(), self.reference())
        except MessageError as error:
            raise UpdateRefusedError(site, str(error)) from None
        if isinstance(update, HandOver) or update.site != site:
            raise UpdateRefusedError(site, f"it is a {type(update).__name__} of {getattr(update, 'site', 'nobody')!r}")
        self.add(update)
        return update

    def reference(self) -> Reference:
        """Return what updates are coded against: what is handed over now."""
        return Reference(self._model.encoders, self._model.decoder, self._model.groups)

    def limit_bytes(self) -> int:
        """Return what an update may have at most."""
        return limit_bytes(self._model)

    def has_enough(self) -> bool:
        """Return whether so many sites' updates are there that the round can end."""
        n_expected = sum(not p.is_lead for p in self.participants.values())
        return self._aggregated or self._encoders.n_terms >= min(self.rules.minimum_sites, n_expected)

    def aggregate(self) -> None:
        """Move the model to the mean of the sites' updates.

        Raises:
            TooFewSitesError: the minimum of updates was not reached; more may still be added.
        """
        if not self.has_enough():
            missing = sorted({p.name for p in self.participants.values() if not p.is_lead} - self.counted)
            raise TooFewSitesError(
                f"Round {self.number} has {self._encoders.n_terms} updates of sites; at least "
                f"{self.rules.minimum_sites} are needed. Missing: {', '.join(missing)}. Start the run again when they "
                "are back: the round goes on with the updates that are there."
            )
        model = self._model
        keeps = self.rules.lead_share if any(p.is_lead for p in self.participants.values()) else 0.0
        decoder = model.decoder
        filters = self._filters.total()
        if filters.n_terms:
            decoder = decoder_mean(filters, model.decoder, model.groups, keeps)
        self._denominators = share_denominators(filters, model.groups, keeps)
        self._model = replace(model, encoders=encoder_means(self._encoders.total(), model.encoders), decoder=decoder)
        self._encoders, self._filters, self._aggregated = RunningSum(), RunningSum(), True

    def close(self) -> CoordinatorState:
        """Return the state after the round: the leads' mean, weighted by their cases, or the aggregate without any."""
        model = self._model
        if self._lead_encoders.n_terms:
            model = replace(
                model,
                encoders=encoder_means(self._lead_encoders.total(), model.encoders),
                decoder=decoder_mean(self._lead_filters.total(), model.decoder, model.groups, 0.0),
            )
        anchors = pool_anchors(self.state.anchors, self._lead_anchors, model.n_anchors_per_class)
        return CoordinatorState(
            self.number, model, anchors, self._denominators, dict(self._n_cases), frozenset(self.counted)
        )

    def _expectation(self) -> Expectation:
        rules = self.rules
        return Expectation(
            rules.run_id,
            self.number,
            {name: p for name, p in self.participants.items() if p.is_lead == self._aggregated},
            self._model,
            rules.decoder_travels,
            rules.anchors_travel,
            rules.limits,
        )

    def _add_site(self, update: SiteUpdate) -> None:
        encoders = encoder_contribution(update.encoders, update.n_cases if self.rules.by_cases else 1)
        if update.decoder is not None:
            self._filters.add(filter_contribution(update.decoder, update.importance, self._model.groups))
        self._encoders.add(encoders)
        self._n_cases[update.site] = update.n_cases

    def _add_lead(self, update: LeadUpdate) -> None:
        groups = self._model.groups
        weight = {group.name: torch.full((group.n_filters,), float(update.n_cases)) for group in groups}
        everything = select(update.decoder, groups, uniform_masks(groups, True))
        encoders = encoder_contribution(update.encoders, update.n_cases)
        self._lead_filters.add(filter_contribution(everything, weight, groups))
        self._lead_encoders.add(encoders)
        if update.anchors is not None:
            self._lead_anchors[update.site] = update.anchors


def limit_bytes(model: Model) -> int:
    """Return what an update may have at most: twice the whole model, for names, masks and anchors."""
    parameters = [*model.encoders.values(), model.decoder]
    return 2**20 + 2 * sum(tensor.nbytes for own in parameters for tensor in own.values())


def pool_anchors(
    state: AnchorState | None, leads: Mapping[str, Anchors], n_anchors_per_class: int
) -> AnchorState | None:
    """Return the federation's anchors from those of its leads: a single lead's as they are.

    The anchors of several leads are grouped as a lead groups its cases: clustered once, membership frozen, and an
    anchor is the mean of its members. They moved slowly at the leads already, so no further moving average is taken.

    Args:
        state: the federation's anchors so far.
        leads: lead -> its anchors; leads that sent none this round keep no say in it.
        n_anchors_per_class: K.
    """
    if not leads:
        return state
    names = sorted(leads)
    cases = tuple(f"{name}/{k}" for name in names for k in range(n_anchors_per_class))
    means = [_anchors_as_cases([leads[name].values[scale] for name in names]) for scale in range(_n_scales(leads))]
    seen = torch.cat([leads[name].valid.T for name in names])
    return update_anchors(state, CaseMeans(cases, tuple(means), seen), n_anchors_per_class, momentum=0.0)


def _anchors_as_cases(anchors: Sequence[Tensor]) -> Tensor:
    """Return (N*K, L, C) from one (L, K, C) a lead."""
    return torch.cat([values.transpose(0, 1) for values in anchors])


def _n_scales(leads: Mapping[str, Anchors]) -> int:
    return len(next(iter(leads.values())).values)
