"""The checkpoint that was best on validation cases is that of its moment, whatever came after and between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.federation.tensors import take
from nnunet_fedmepd.runtime.run_folder import RunFolder
from nnunet_fedmepd.runtime.running import run_federation
from tests.nnunet_plugin.small_dataset import SmallDataset
from tests.runtime.small_federation import CONSOLE, OWNED, UNROUNDED, results_folder, small_federation

ROUNDS = 3
# With this learning rate and loss some models get worse and others better, with most seeds.
TRAINING = {"num_iterations_per_epoch": 3, "initial_lr": 1.0, "loss": "weighted"}
METHOD = {**UNROUNDED, "personalization": {"leave_one_out": False}}
FEDERATION = small_federation(ROUNDS, run={"fold": 0}, training=TRAINING, method=METHOD)


@pytest.fixture
def with_validation(datasets):
    """Small datasets, each with a validation case."""
    for i, site in enumerate(OWNED):
        dataset = SmallDataset(f"Dataset{500 + i}_{site}")
        cases = [f"case{number}" for number in range(2 + i)]
        (dataset.preprocessed / "splits_final.json").write_text(json.dumps([{"train": cases[1:], "val": cases[:1]}]))
    return datasets


def best(site: str) -> dict:
    folder = results_folder(site, 500 + list(OWNED).index(site)) / "fold_0"
    return torch.load(folder / "checkpoint_best.pth", weights_only=False)


def run_in_which_only_some_models_end_at_their_best(path: Path) -> tuple[Federation, RunFolder]:
    """Run with one seed after the other; which of them will do depends on how the processor rounds."""
    for seed in range(1, 11):
        federation, folder = FEDERATION.model_copy(update={"seed": seed}), RunFolder(path / f"run{seed}")
        run_federation(federation, folder.path, CONSOLE, overwrite=True)
        epochs = [best(site)["current_epoch"] for site in OWNED]
        if min(epochs) < max(epochs) == ROUNDS:
            return federation, folder
    raise AssertionError("With none of ten seeds do some models end at their best and others not.")


def test_the_best_checkpoint_is_the_model_with_the_anchors_of_its_round_also_in_a_run_that_was_resumed(
    with_validation, tmp_path
):
    federation, folder = run_in_which_only_some_models_end_at_their_best(tmp_path)
    undisturbed = {site: best(site) for site in OWNED}
    epochs = {site: checkpoint["current_epoch"] for site, checkpoint in undisturbed.items()}
    for site in (site for site in OWNED if epochs[site] == ROUNDS):
        state, _ = folder.site(site).load(ROUNDS)
        assert equal(undisturbed[site]["network_weights"], take(take(state, "training"), "network"))

    for states in (folder.coordinator, *map(folder.site, OWNED)):
        states.file(ROUNDS).unlink()  # as if the power had failed in the last round
    run_federation(federation, folder.path, CONSOLE)
    for site in OWNED:
        assert best(site)["current_epoch"] == epochs[site]
        assert equal(best(site)["network_weights"], undisturbed[site]["network_weights"])


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_federation_whose_folds_cannot_be_made_is_refused_before_it_starts(datasets, tmp_path):
    with pytest.raises(ConfigurationError, match=r"site 'lead'.*2 training cases cannot be divided"):
        run_federation(FEDERATION, tmp_path / "run", CONSOLE)
    assert not RunFolder(tmp_path / "run").journal()
