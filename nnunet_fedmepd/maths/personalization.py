"""Which filters of the fusion decoder a site keeps to itself (Liu et al. 2025, section 3.4).

A site compares, filter by filter, how the lead's decoder changed in a round (dW_s) with how its own training changed it
(dW_i): c_ij = cos(dW_s,j , dW_i,j). A filter that disagrees too often becomes personal for good.

Deliberate departure: in the publication the server computes all this from every site's update. Here each site does, for
itself: it is sent the lead's decoder every round, so it knows dW_s as well as its own dW_i. The numbers are the same,
but no update of a single site and no state of any site is needed elsewhere.

A site that misses a round does not know that round's dW_s: it leaves its state as it is and goes on with the next
round that it sees from start to end. A site that joins late starts with `fresh`.

Legend: F filters of a group, D values per filter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.maths.parameters import (
    FilterGroup,
    ParameterError,
    along_axis,
    check_alike,
    check_groups,
)

# Liu et al.: nothing is judged in the first 30 of 1,000 rounds.
PUBLISHED_WARM_UP_ROUNDS = 30
PUBLISHED_ROUNDS = 1000

_ROUNDING = 2.0**-23  # of float32, relative: what is left of a difference that is no larger is no change
_BLOCK = 32768  # values of an update; two updates' in float64 take 512 KiB


@dataclass(frozen=True)
class PersonalizationSettings:
    """How filters become personal; the defaults are those of Liu et al. 2025, but for `leave_one_out`.

    Attributes:
        patience: P, disagreements without an agreement in between after which a filter becomes personal (published: 10
            in 1,000 rounds; `patience_for` gives fewer in a shorter run).
        warm_up_rounds: rounds at the start in which nothing is judged (published: 30 of 1,000; `warm_up_for` gives
            the same share of another run).
        importance_memory: share of the old importance that is kept each round.
        max_ratio: bound of |dW_s| / |dW_i|, which is unbounded in the publication; a filter that hardly moved at a
            site must not outweigh all other sites.
        leave_one_out: judge by the lead's change without the site's own share in it (published: with it). With few
            sites a site's own share is large enough to make it agree with itself; without it Dice is 2.3 points
            higher in the mean of sites over three seeds (tests/benchmarks/results/earlier,
            `evidence_small_weighted`).
        update_memory: judge by moving averages of dW_s and dW_i with this memory, in [0, 1); 0 judges single rounds.
        noise_margin: |c| up to this many standard deviations of the cosine of two independent random
            updates, 1 / sqrt(D), counts as neither agreement nor disagreement (published: 0).
    """

    patience: int = 10
    warm_up_rounds: int = PUBLISHED_WARM_UP_ROUNDS
    importance_memory: float = 0.95
    max_ratio: float = 1000.0
    leave_one_out: bool = True
    update_memory: float = 0.0
    noise_margin: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)}; expected {expected}."
            for name, valid, expected in (
                ("patience", self.patience >= 1, "at least 1"),
                ("warm_up_rounds", self.warm_up_rounds >= 0, "at least 0"),
                ("importance_memory", 0 <= self.importance_memory <= 1, "a share from 0 to 1"),
                ("max_ratio", 0 < self.max_ratio < math.inf, "a positive number"),
                ("update_memory", 0 <= self.update_memory < 1, "a share from 0 to less than 1"),
                ("noise_margin", 0 <= self.noise_margin < math.inf, "at least 0"),
            )
            if not valid
        ]
        if problems:
            raise ConfigurationError("Personalization: " + " ".join(problems))


@dataclass(frozen=True)
class Personalization:
    """What a site remembers about its filters from round to round. It never leaves the site as a whole.

    Attributes:
        patience: group name -> (F,) int64, disagreements left; 0 where personal.
        importance: group name -> (F,) float32 h_ij; 0 where personal.
        shared: group name -> (F,) bool b_ij.
        lead_average, site_average: moving averages of dW_s and dW_i; empty where `update_memory` is 0.
    """

    patience: Mapping[str, Tensor]
    importance: Mapping[str, Tensor]
    shared: Mapping[str, Tensor]
    lead_average: Mapping[str, Tensor] = field(default_factory=dict)
    site_average: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundEvidence:
    """What a site knows once a round is over.

    Attributes:
        round_number: counted from 1.
        lead_update: dW_s, the lead's decoder after this round minus the one after the previous round, whole parameters;
            zero, or anything, in filters that are already personal (those are not sent).
        site_update: dW_i, the site's decoder after its local training minus before.
        case_share: n_i / N, training cases of the site over those of the federation.
        own_share: group name -> (F,) share of the site's update in the lead's, see `own_share`; leave-one-out only.
    """

    round_number: int
    lead_update: Mapping[str, Tensor]
    site_update: Mapping[str, Tensor]
    case_share: float
    own_share: Mapping[str, Tensor] | None = None


def warm_up_for(n_rounds: int) -> int:
    """Return the warm-up that is the published share (3 %) of a run of `n_rounds`."""
    return round(n_rounds * PUBLISHED_WARM_UP_ROUNDS / PUBLISHED_ROUNDS)


def patience_for(n_rounds: int) -> int:
    """Return the cube root of the number of rounds: the published 10 in 1,000 rounds, 3 in 24.

    In 24 rounds a patience of 10 leaves nearly every filter shared; with 3, sites with few modalities were better and
    none was worse (tests/benchmarks/results/earlier, `evidence_small_nnunet_loss`).
    """
    return max(1, round(n_rounds ** (1 / 3)))


def fresh(groups: Sequence[FilterGroup], settings: PersonalizationSettings) -> Personalization:
    """Return the state of a site that has seen no round: all filters shared, full patience, importance 1."""
    return Personalization(
        patience={g.name: torch.full((g.n_filters,), settings.patience) for g in groups},
        importance={g.name: torch.ones(g.n_filters) for g in groups},
        shared={g.name: torch.ones(g.n_filters, dtype=torch.bool) for g in groups},
    )


def personalize(
    state: Personalization, evidence: RoundEvidence, groups: Sequence[FilterGroup], settings: PersonalizationSettings
) -> tuple[Personalization, dict[str, Tensor]]:
    """Return the state after a round, and group name -> (F,) c_ij; the same state and nothing during warm-up.

    Raises:
        ParameterError: updates and groups do not fit together, or an update is not finite.
        ConfigurationError: leave-one-out without `own_share`, or a share of cases outside [0, 1].
    """
    if not 0 <= evidence.case_share <= 1:
        raise ConfigurationError(f"The site's share of cases is {evidence.case_share}; expected n_i / N from 0 to 1.")
    if evidence.round_number <= settings.warm_up_rounds:
        return state, {}
    lead, site = evidence.lead_update, evidence.site_update
    check_groups(site, groups)
    check_alike(lead, site, "The lead's update")
    share = evidence.own_share if settings.leave_one_out else None
    if settings.leave_one_out and share is None:
        raise ConfigurationError("Leave-one-out needs the site's own share in the lead's update; none was given.")
    compared = compare(lead, site, groups, share)
    cosines, averages = compared.cosines, {}
    if settings.update_memory > 0:
        others = lead if share is None else leave_one_out(lead, site, groups, share)
        averages = {
            "lead_average": average_updates(state.lead_average, others, settings.update_memory),
            "site_average": average_updates(state.site_average, site, settings.update_memory),
        }
        cosines = agreement(averages["lead_average"], averages["site_average"], groups)
    judged = beyond_noise(cosines, site, groups, settings.noise_margin)
    after = update(state, judged, compared.lead_norms, compared.site_norms, evidence.case_share, settings)
    return replace(after, **averages), cosines


def agreement(
    lead_update: Mapping[str, Tensor], site_update: Mapping[str, Tensor], groups: Sequence[FilterGroup]
) -> dict[str, Tensor]:
    """Return group name -> (F,) float64 cosine of the two updates of each filter; 0 where one of them is zero.

    Raises:
        ParameterError: an update is not finite.
    """
    return compare(lead_update, site_update, groups).cosines


@dataclass(frozen=True)
class Comparison:
    """Two updates of every filter beside each other: group name -> (F,) float64.

    Attributes:
        cosines: of the two; 0 where one of them is zero.
        lead_norms, site_norms: Euclidean norms.
    """

    cosines: dict[str, Tensor]
    lead_norms: dict[str, Tensor]
    site_norms: dict[str, Tensor]


def compare(
    lead_update: Mapping[str, Tensor],
    site_update: Mapping[str, Tensor],
    groups: Sequence[FilterGroup],
    own_share: Mapping[str, Tensor] | None = None,
) -> Comparison:
    """Return how two updates of every filter compare.

    Args:
        lead_update, site_update: whole parameters.
        groups: the filters.
        own_share: group name -> (F,) share of the site's update in the lead's, to be left out of the lead's as
            `leave_one_out` does, but without making that update; None compares the lead's as it is.

    Raises:
        ParameterError: an update is not finite.
    """
    result = Comparison({}, {}, {})
    for group in groups:
        parts = [_products(lead_update[name], site_update[name], axis) for name, axis in group.members]
        product, lead_square, site_square = torch.from_numpy(np.sum(parts, axis=0))
        if not bool((lead_square + site_square).isfinite().all()):
            raise ParameterError(f"The update of filter group {group.name!r} is not finite; has the training diverged?")
        if own_share is not None:
            # Of dW_s - share * dW_i: its product with dW_i, and its square.
            share = own_share[group.name].double()
            rest = lead_square - 2 * share * product + share.square() * site_square
            product = product - share * site_square
            lead_square = torch.where(rest > _ROUNDING**2 * lead_square, rest, 0.0)
        lead_norm, site_norm = lead_square.sqrt(), site_square.sqrt()
        result.lead_norms[group.name], result.site_norms[group.name] = lead_norm, site_norm
        result.cosines[group.name] = _ratio(product, lead_norm * site_norm).clamp(-1, 1)
    return result


def _products(lead: Tensor, site: Tensor, axis: int) -> NDArray:
    """Return (3, F) float64: lead . site, lead . lead and site . site of every slice along an axis.

    Blocks of slices are turned into float64 where they stay in the processor's cache.
    """
    own = [np.moveaxis(update.detach().cpu().numpy(), axis, 0) for update in (lead, site)]
    n_filters, *shape = own[0].shape
    at_once = max(1, _BLOCK // max(1, math.prod(shape)))
    scratch = np.empty((2, min(at_once, n_filters), *shape))
    products = np.empty((3, n_filters))
    for start in range(0, n_filters, at_once):
        filters = slice(start, start + at_once)
        rows = scratch[:, : len(own[0][filters])]
        np.copyto(rows[0], own[0][filters])
        np.copyto(rows[1], own[1][filters])
        a, b = rows.reshape(2, rows.shape[1], -1)
        for result, (left, right) in zip(products, ((a, b), (a, a), (b, b)), strict=True):
            np.einsum("fd,fd->f", left, right, out=result[filters])
    return products


def leave_one_out(
    lead_update: Mapping[str, Tensor],
    site_update: Mapping[str, Tensor],
    groups: Sequence[FilterGroup],
    share: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return dW_s without the site's own contribution to it.

    All sites start a round from the lead's filter D_j, so that aggregation moves the lead's filter by
    (1 - lam) * sum_k h_kj dW_kj / sum_k h_kj, and the lead's own training adds the rest. The part of site i is
    share_ij * dW_i,j with share_ij = (1 - lam) * h_ij / sum_k h_kj, and is subtracted. How the lead's training reacted
    to that part remains.

    Args:
        share: group name -> (F,) share_ij, from `own_share`.
    """
    result = {}
    for group in groups:
        for name, axis in group.members:
            part = along_axis(share[group.name].double(), axis, site_update[name].ndim) * site_update[name]
            result[name] = (lead_update[name] - part).to(lead_update[name].dtype)
    return result


def own_share(importance: Mapping[str, Tensor], denominators: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return (1 - lam) * h_ij / sum_k h_kj for each filter, 0 where no site moves it.

    Args:
        importance: group name -> (F,) h_ij that the site sent in this round, 0 where the filter was personal and
            everywhere where its update did not enter the sum.
        denominators: group name -> (F,) sum_k h_kj / (1 - lam), which the coordinator announces.
    """
    return {name: _ratio(h.double(), denominators[name].double()) for name, h in importance.items()}


def average_updates(average: Mapping[str, Tensor], update: Mapping[str, Tensor], memory: float) -> dict[str, Tensor]:
    """Return memory * average + (1 - memory) * update; the update itself where there is no average yet."""
    if not average:
        return dict(update)
    return {name: memory * average[name] + (1 - memory) * update[name] for name in update}


def beyond_noise(
    cosines: Mapping[str, Tensor], updates: Mapping[str, Tensor], groups: Sequence[FilterGroup], margin: float
) -> dict[str, Tensor]:
    """Return the cosines with those set to 0 that lie within `margin` / sqrt(D) of it.

    1 / sqrt(D) is the standard deviation of the cosine of two independent, uniformly directed updates.
    """
    widths = {g.name: sum(updates[name].numel() for name, _ in g.members) // g.n_filters for g in groups}
    return {name: torch.where(c.abs() > margin / math.sqrt(widths[name]), c, 0.0) for name, c in cosines.items()}


def update(
    state: Personalization,
    agreement: Mapping[str, Tensor],
    lead_norms: Mapping[str, Tensor],
    site_norms: Mapping[str, Tensor],
    case_share: float,
    settings: PersonalizationSettings,
) -> Personalization:
    """Return the state after one judgement of every filter.

    Where c_ij < 0 patience falls by one, where c_ij > 0 it is restored, where c_ij = 0 it stays. At 0 the filter is
    personal for good. h_ij <- memory * h_ij + (1 - memory) * (|dW_s,j| / |dW_i,j|) * n_i / N, unchanged where
    |dW_i,j| = 0, and 0 once personal.

    Args:
        agreement: group name -> (F,) c_ij.
        lead_norms, site_norms: group name -> (F,) |dW_s,j| and |dW_i,j|.
        case_share: n_i / N.
    """
    patience = {
        name: _next_patience(left, agreement[name], state.shared[name], settings.patience)
        for name, left in state.patience.items()
    }
    shared = {name: left > 0 for name, left in patience.items()}
    importance = {
        name: torch.where(
            shared[name], _next_importance(h, lead_norms[name], site_norms[name], case_share, settings), 0.0
        )
        for name, h in state.importance.items()
    }
    return Personalization(patience, importance, shared, state.lead_average, state.site_average)


def _next_patience(
    left: Int[Tensor, " F"], cosine: Float[Tensor, " F"], shared: Bool[Tensor, " F"], full: int
) -> Int[Tensor, " F"]:
    changed = torch.where(cosine > 0, full, left - (cosine < 0).long())
    return torch.where(shared, changed, 0)


def _next_importance(
    h: Float[Tensor, " F"],
    lead_norm: Float[Tensor, " F"],
    site_norm: Float[Tensor, " F"],
    case_share: float,
    settings: PersonalizationSettings,
) -> Float[Tensor, " F"]:
    ratio = _ratio(lead_norm, site_norm).clamp(max=settings.max_ratio)
    memory = settings.importance_memory
    changed = memory * h.double() + (1 - memory) * ratio * case_share
    return torch.where(site_norm > 0, changed, h.double()).to(h.dtype)


def _ratio(numerator: Float[Tensor, " F"], denominator: Float[Tensor, " F"]) -> Float[Tensor, " F"]:
    """Return the quotient, 0 where the denominator is."""
    return torch.where(denominator > 0, numerator / torch.where(denominator > 0, denominator, 1.0), 0.0)
