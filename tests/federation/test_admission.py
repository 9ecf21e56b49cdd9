"""A bad update is refused by name, and the sums are as if it had never come."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nnunet_fedmepd.federation.admission import Limits, UpdateRefusedError
from nnunet_fedmepd.federation.coordinator import Round
from nnunet_fedmepd.federation.messages import Anchors
from nnunet_fedmepd.maths.parameters import FilterSubset
from tests.federation.tiny_federation import an_update, by, rules, run_round, site, some_anchors, start

T1, T2, WEIGHT = "encoders.T1.weight", "encoders.T2.weight", "decoder.conv.weight"


def encoder(tensor: torch.Tensor, name: str = T1) -> dict:
    return {"encoders": {"T1": {name: tensor}}}


def decoder(**values: torch.Tensor) -> dict:
    good = an_update().decoder
    return {"decoder": FilterSubset({**good.values, WEIGHT: values["weight"]}, good.masks)}


BAD = {
    "a stranger": ({"site": "mallory"}, "no such site; expected one of \\['a'\\]"),
    "another run": ({"run_id": "run-0"}, "belongs to run 'run-0'; expected 'run-1'"),
    "an old round": ({"round_number": 0}, "belongs to round 0; expected 1"),
    "a future round": ({"round_number": 9}, "belongs to round 9; expected 1"),
    "no cases": ({"n_cases": 0}, "claims 0 training cases"),
    "too many cases": ({"n_cases": 10**9}, "claims 1000000000 training cases"),
    "an undeclared modality": (
        {"encoders": {"T1": {T1: torch.zeros(2, 3)}, "T2": {T2: torch.zeros(2, 3)}}},
        "encoders of \\['T1', 'T2'\\]; declared are the modalities \\['T1'\\]",
    ),
    "a missing modality": ({"encoders": {}}, "encoders of \\[\\]; declared"),
    "another name": (encoder(torch.zeros(2, 3), "other"), "the encoder of T1 lack 1 of 1 parameters"),
    "another shape": (encoder(torch.zeros(3, 2)), r"shape \(3, 2\) and type torch.float32; expected \(2, 3\)"),
    "another type": (encoder(torch.zeros(2, 3, dtype=torch.float64)), "type torch.float64"),
    "a NaN": (encoder(torch.full((2, 3), torch.nan)), "not finite or beyond"),
    "an infinity": (encoder(torch.full((2, 3), torch.inf)), "not finite or beyond"),
    "a huge value": (encoder(torch.full((2, 3), 1e30)), "not finite or beyond"),
    "no decoder": ({"decoder": None}, "no decoder filters"),
    "too few filters": (decoder(weight=torch.zeros(3, 3)), "decoder.conv.weight"),
    "a NaN in a filter": (decoder(weight=torch.full((4, 3), torch.nan)), "not finite or beyond"),
    "filters of another width": (decoder(weight=torch.zeros(4, 5)), r"\(4, 5\)"),
    "no importance": ({"importance": {}}, "importance does not cover"),
    "negative importance": ({"importance": {"decoder.conv": -torch.ones(4)}}, "leaves 0 to 1000"),
    "overwhelming importance": ({"importance": {"decoder.conv": torch.full((4,), 1e6)}}, "leaves 0 to 1000"),
    "NaN importance": ({"importance": {"decoder.conv": torch.full((4,), torch.nan)}}, "leaves 0 to 1000"),
    "importance of another shape": ({"importance": {"decoder.conv": torch.ones(3)}}, r"expected \(4,\) float32"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_a_bad_update_is_refused_and_leaves_no_trace(changes, message):
    good, other = an_update(), site("b", ("T1", "T2"), by(0.5))
    bad = replace(good, **changes)
    participants = [site("a", ("T1",)).participant]
    current = Round(start(), participants, rules())
    with pytest.raises(UpdateRefusedError, match=message) as refused:
        current.add(bad)
    assert refused.value.site == bad.site
    current.add(good)
    current.aggregate()
    clean = Round(start(), participants, rules())
    clean.add(good)
    clean.aggregate()
    assert torch.equal(current.close().model.decoder[WEIGHT], clean.close().model.decoder[WEIGHT])
    assert other.state.round_number == 0


def test_a_second_update_of_a_site_in_a_round_is_refused():
    current = Round(start(), [site("a", ("T1",)).participant], rules())
    current.add(an_update())
    with pytest.raises(UpdateRefusedError, match="'a' is refused: its update of round 1 is counted already"):
        current.add(an_update())


def test_a_site_cannot_pass_for_a_lead():
    current = Round(start(), [site("a", ("T1",), lead=True).participant], rules())
    current.aggregate()
    with pytest.raises(UpdateRefusedError, match="it is a SiteUpdate; expected a LeadUpdate"):
        current.add(an_update())


def test_a_sites_update_that_comes_after_aggregation_is_refused():
    current = Round(start(), [site("a", ("T1",)).participant, site("b").participant], rules())
    other = site("b")
    current.add(other.take_turn(current.hand_over("b")))
    current.aggregate()
    with pytest.raises(UpdateRefusedError, match="no such site"):
        current.add(an_update())


def test_the_norm_of_a_change_is_bounded_where_asked():
    small, large = site("a", ("T1",), by(0.01)), site("a", ("T1",), by(5.0))
    strict = rules(limits=Limits(1000.0, maximum_norm=0.5))
    run_round(start(), [small], strict)
    with pytest.raises(UpdateRefusedError, match=r"changed by .* times its norm; at most 0.5 is allowed"):
        run_round(start(), [large], strict)


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        (Anchors((torch.ones(2, 2, 4),), torch.ones(2, 2, dtype=torch.bool)), "anchors have shapes"),
        (Anchors((torch.ones(2, 2, 3),), torch.ones(2, 2)), "validity is"),
        (Anchors((torch.full((2, 2, 3), torch.nan),), torch.ones(2, 2, dtype=torch.bool)), "not finite"),
        (Anchors((torch.ones(2, 2, 3).double(),), torch.ones(2, 2, dtype=torch.bool)), "expected float32"),
    ],
    ids=["shape", "validity", "NaN", "type"],
)
def test_bad_anchors_are_refused(anchors, message):
    with pytest.raises(UpdateRefusedError, match=message):
        run_round(start(), [site("lead", lead=True, anchors=anchors)])


def test_anchors_are_refused_where_none_are_expected():
    with pytest.raises(UpdateRefusedError, match="it has anchors; none are expected"):
        run_round(start(), [site("lead", lead=True, anchors=some_anchors())], rules(anchors_travel=False))
