"""A site's part of a round: what it loads, what it keeps to itself, what it sends (Liu et al. 2025, section 3.4).

    turn = begin(state, hand_over, own_decoder, rules)    judges the last round, so filters may become personal
    ... load turn.parameters, train ...
    update, state = finish(turn, trained parameters)

Agreement, patience, masks and importance are computed here and stay here, but for the masks and the importance, which
the coordinator needs for its sums. Interrupted between the two, a site begins again from the state it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.federation.messages import Anchors, HandOver, LeadUpdate, Parameters, SiteUpdate
from nnunet_fedmepd.maths.parameters import (
    FilterGroup,
    FilterSubset,
    check_subset,
    delta,
    dense,
    overlay,
    select,
    uniform_masks,
)
from nnunet_fedmepd.maths.personalization import (
    Personalization,
    PersonalizationSettings,
    RoundEvidence,
    fresh,
    own_share,
    personalize,
)


class HandOverError(FedMEPDError):
    """What the coordinator handed over does not fit this site."""


@dataclass(frozen=True)
class SiteRules:
    """How a site takes part.

    Attributes:
        name: of the site.
        n_cases: its training cases.
        groups: filters of the fusion decoder.
        personalization: how filters become personal; None keeps all of them shared.
        by_cases: whether, without personalization, a filter counts by the site's cases instead of equally.
    """

    name: str
    n_cases: int
    groups: Sequence[FilterGroup]
    personalization: PersonalizationSettings | None
    by_cases: bool = False


@dataclass(frozen=True)
class SiteState:
    """What a site remembers between rounds, besides its network and optimizer.

    Attributes:
        round_number: last round it trained; 0 before the first.
        personalization: patience, importance and masks; None where all filters are shared, or none.
        received: the decoder's filters as handed over in that round, zeros in place of personal ones; empty before.
        update: dW_i, the change of the decoder by the site's training in that round; empty before.
        sent: filter group -> (F,) importance sent in that round.
        residual: parameter -> what a lossy codec left out of the updates so far; empty without one.
        message: the update of that round as bytes, where a codec made them: it is sent again as it is.
    """

    round_number: int = 0
    personalization: Personalization | None = None
    received: Parameters = field(default_factory=dict)
    update: Parameters = field(default_factory=dict)
    sent: Mapping[str, Tensor] = field(default_factory=dict)
    residual: Parameters = field(default_factory=dict)
    message: bytes = b""


@dataclass(frozen=True)
class Turn:
    """A turn that began: what to load before training, and what `finish` needs.

    Attributes:
        hand_over: what began it.
        state: the site's state, with the last round judged.
        parameters: encoders and whole fusion decoder to load.
        decoder: the decoder among them.
        agreement: filter group -> (F,) c_ij that the last round was judged by, meaningless where the filter was
            personal before; empty where the round was not judged.
    """

    hand_over: HandOver
    state: SiteState
    parameters: Parameters
    decoder: Parameters
    agreement: Mapping[str, Tensor]


def shared_masks(state: SiteState, groups: Sequence[FilterGroup]) -> dict[str, Tensor]:
    """Return filter group -> (F,) bool, which filters a site shares; all of them without personalization."""
    return dict(state.personalization.shared) if state.personalization else uniform_masks(groups, True)


def begin(state: SiteState, hand_over: HandOver, own_decoder: Parameters, rules: SiteRules) -> Turn:
    """Judge the last round, if the site saw it from start to end, and merge what was handed over with what is personal.

    Args:
        state: after the last round that the site trained.
        hand_over: of the round that begins.
        own_decoder: the site's whole decoder.
        rules: how the site takes part.

    Raises:
        HandOverError: a round that is not later than the last one, or filters that do not fit the network.
    """
    if hand_over.round_number <= state.round_number:
        raise HandOverError(
            f"Site {rules.name!r} was handed over round {hand_over.round_number}, but has trained round "
            f"{state.round_number} already. Is this the right coordinator, and are its states complete?"
        )
    received: dict[str, Tensor] = {}
    if hand_over.decoder is not None:
        check_subset(hand_over.decoder, rules.groups)
        received = dense(hand_over.decoder, rules.groups)
    agreement: dict[str, Tensor] = {}
    if rules.personalization is not None and hand_over.decoder is not None:
        personalization, agreement = _judged(state, hand_over, received, rules, rules.personalization)
        state = replace(state, personalization=personalization)
    decoder = dict(own_decoder)
    if hand_over.decoder is not None:
        decoder = overlay(own_decoder, _still_shared(hand_over.decoder, received, state, rules), rules.groups)
    encoders = {name: tensor for encoder in hand_over.encoders.values() for name, tensor in encoder.items()}
    return Turn(hand_over, replace(state, received=received), {**encoders, **decoder}, decoder, agreement)


def finish(turn: Turn, trained: Parameters, rules: SiteRules) -> tuple[SiteUpdate, SiteState]:
    """Return what the site sends after its training, and its state after the round.

    Args:
        turn: as begun.
        trained: the network's encoders and whole decoder after training.
        rules: how the site takes part.
    """
    decoder = {name: trained[name] for name in turn.decoder}
    state = replace(
        turn.state,
        round_number=turn.hand_over.round_number,
        update=delta(decoder, turn.decoder) if turn.state.personalization else {},
        sent=_importance(turn.state, rules) if turn.hand_over.decoder is not None else {},
        received=turn.state.received if turn.state.personalization else {},
    )
    return site_update(state, turn.hand_over.run_id, trained, turn.hand_over.encoders, rules), state


def site_update(
    state: SiteState,
    run_id: str,
    trained: Parameters,
    encoders: Mapping[str, Iterable[str]],
    rules: SiteRules,
) -> SiteUpdate:
    """Return the update of the last round that a site trained; made anew from its state, it is the same.

    Args:
        state: after that round.
        run_id: of the run.
        trained: the network's encoders and whole decoder after it.
        encoders: modality -> names of its encoder's parameters.
        rules: how the site takes part.
    """
    decoder = None
    if state.sent:
        names = [name for group in rules.groups for name, _ in group.members]
        decoder = select({name: trained[name] for name in names}, rules.groups, shared_masks(state, rules.groups))
    return SiteUpdate(
        run_id, rules.name, state.round_number, rules.n_cases, _encoders(trained, encoders), decoder, dict(state.sent)
    )


def lead_update(
    round_number: int,
    run_id: str,
    trained: Parameters,
    encoders: Mapping[str, Iterable[str]],
    rules: SiteRules,
    anchors: Anchors | None,
) -> LeadUpdate:
    """Return what a lead sends after its training in a round.

    Args:
        round_number: of the round.
        run_id: of the run.
        trained: its encoders and whole decoder.
        encoders: modality -> names of its encoder's parameters.
        rules: how it takes part.
        anchors: its anchors; None where anchors are off.
    """
    decoder = {name: trained[name] for group in rules.groups for name, _ in group.members}
    return LeadUpdate(run_id, rules.name, round_number, rules.n_cases, _encoders(trained, encoders), decoder, anchors)


def _judged(
    state: SiteState, hand_over: HandOver, received: Parameters, rules: SiteRules, settings: PersonalizationSettings
) -> tuple[Personalization, dict[str, Tensor]]:
    own = state.personalization or fresh(rules.groups, settings)
    if not state.update or state.round_number != hand_over.round_number - 1:
        return own, {}  # the lead's change in the last round that the site trained is not known to it
    share = None
    if settings.leave_one_out:
        sent = state.sent if hand_over.counted else {name: torch.zeros_like(h) for name, h in state.sent.items()}
        share = own_share(sent, hand_over.share_denominators)
    case_share = rules.n_cases / max(hand_over.n_cases_total, rules.n_cases)
    lead_change = delta(received, state.received)
    evidence = RoundEvidence(state.round_number, lead_change, state.update, case_share, share)
    return personalize(own, evidence, rules.groups, settings)


def _still_shared(handed: FilterSubset, received: Parameters, state: SiteState, rules: SiteRules) -> FilterSubset:
    """Return the filters handed over but those that became personal since the coordinator last heard of the site."""
    masks = shared_masks(state, rules.groups)
    return select(received, rules.groups, {name: handed.masks[name] & mask for name, mask in masks.items()})


def _importance(state: SiteState, rules: SiteRules) -> dict[str, Tensor]:
    if state.personalization is not None:
        return dict(state.personalization.importance)
    weight = float(rules.n_cases) if rules.by_cases else 1.0
    return {group.name: torch.full((group.n_filters,), weight) for group in rules.groups}


def _encoders(trained: Parameters, names: Mapping[str, Iterable[str]]) -> dict[str, Parameters]:
    return {modality: {name: trained[name] for name in encoder} for modality, encoder in names.items()}
