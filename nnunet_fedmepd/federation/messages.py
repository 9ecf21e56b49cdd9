"""What coordinator and sites send each other in a round; nothing else leaves a site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nnunet_fedmepd.maths.parameters import FilterSubset

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Anchors:
    """Class means of a lead's fused features.

    Attributes:
        values: per scale, high to low resolution: (L, K, C of the scale).
        valid: (L, K) bool.
    """

    values: tuple[Tensor, ...]
    valid: Tensor


@dataclass(frozen=True)
class HandOver:
    """Coordinator -> participant, at the start of its turn in a round.

    Attributes:
        run_id: of the federated run.
        round_number: counted from 1.
        encoders: modality -> parameters, for the participant's modalities.
        decoder: the fusion decoder's filters, without those known to be personal at the site; None where decoders do
            not travel.
        anchors: the leads' anchors; None while there are none.
        share_denominators: filter group -> (F,) of the last round that was aggregated; a site's importance over it is
            the share of its update in the aggregate.
        n_cases_total: training cases of all sites that send updates.
        counted: whether the participant's update of the last round entered the sums.
    """

    run_id: str
    round_number: int
    encoders: Mapping[str, Parameters]
    decoder: FilterSubset | None
    anchors: Anchors | None
    share_denominators: Mapping[str, Tensor]
    n_cases_total: int
    counted: bool


@dataclass(frozen=True)
class SiteUpdate:
    """Site -> coordinator, after its local training.

    Attributes:
        run_id, site, round_number: whose update, and when.
        n_cases: the site's training cases.
        encoders: modality -> parameters, for the site's modalities.
        decoder: the shared filters of the fusion decoder; None where decoders do not travel.
        importance: filter group -> (F,) h_ij, 0 where personal; empty where decoders do not travel.
    """

    run_id: str
    site: str
    round_number: int
    n_cases: int
    encoders: Mapping[str, Parameters]
    decoder: FilterSubset | None
    importance: Mapping[str, Tensor]


@dataclass(frozen=True)
class LeadUpdate:
    """Lead -> coordinator, after it trained on top of the aggregate.

    Attributes:
        run_id, site, round_number: whose update, and when.
        n_cases: the lead's training cases.
        encoders: modality -> parameters, for every modality.
        decoder: the whole fusion decoder.
        anchors: its anchors; None where anchors are off.
    """

    run_id: str
    site: str
    round_number: int
    n_cases: int
    encoders: Mapping[str, Parameters]
    decoder: Parameters
    anchors: Anchors | None


Update = SiteUpdate | LeadUpdate
Message = HandOver | SiteUpdate | LeadUpdate
