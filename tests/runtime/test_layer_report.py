"""The journal tells, layer by layer, which filters became personal and how far site and lead agreed."""

from __future__ import annotations

import torch

from nnunet_fedmepd.networks.decoder_layers import DecoderLayer
from nnunet_fedmepd.runtime.layer_report import layer_report
from nnunet_fedmepd.runtime.run_folder import RunFolder
from tests.runtime.small_federation import run, small_federation

LAYERS = [DecoderLayer(1, "merge", ("a", "b"), 3), DecoderLayer(0, "output", ("c",), 1)]


def masks(a, b, c):
    return {name: torch.tensor(mask) for name, mask in (("a", a), ("b", b), ("c", c))}


def test_agreement_is_the_mean_over_filters_that_were_shared_when_they_were_judged():
    before = masks([True, False], [True], [False])
    after = masks([False, False], [True], [False])
    cosines = {"a": torch.tensor([-0.5, 0.9]), "b": torch.tensor([0.25]), "c": torch.tensor([1.0])}
    report = layer_report(LAYERS, before, after, cosines)
    assert report == {"personal": [2, 1], "agreement": [-0.125, None]}
    assert layer_report(LAYERS, before, after, {}) == {"personal": [2, 1]}


def by_turn(folder):
    kept = ("personal", "agreement", "filters", "shared_filters")
    return {(line["round"], line["site"]): {k: line.get(k) for k in kept} for line in folder.journal()}


def test_the_journal_of_a_run_adds_up_and_is_the_same_when_the_run_was_interrupted(datasets, tmp_path):
    whole, interrupted = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "interrupted")
    # Judged without the site's own share, some filters disagree even in a run as short as this.
    personalization = {"patience": 1, "warm_up_rounds": 0, "leave_one_out": True}
    federation = small_federation(rounds=4, method={"personalization": personalization})
    run(federation, whole.path)
    run(federation, interrupted.path)
    for party in ("coordinator", "sites/a", "sites/b", "sites/lead"):
        (interrupted.path / party / "round_00004.state").unlink()
    interrupted.write_journal([line for line in interrupted.journal() if line["round"] < 4])
    run(federation, interrupted.path)

    turns, layers = by_turn(whole), whole.layers()
    assert turns == by_turn(interrupted)
    assert turns[1, "a"]["agreement"] is None, "nothing is judged before the first round"
    last = turns[4, "a"]
    assert sum(last["personal"]) == last["filters"] - last["shared_filters"] > 0
    assert len(last["personal"]) == len(last["agreement"]) == len(layers)
    assert all(n <= layer.n_filters for n, layer in zip(last["personal"], layers, strict=True))
    assert all(-1 <= mean <= 1 for mean in last["agreement"] if mean is not None)
    assert turns[4, "lead"]["personal"] is None
