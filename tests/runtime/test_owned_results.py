"""Models in nnU-Net's results folders: whose they are, whatever is trained or started beside them."""

from __future__ import annotations

import json

import pytest
import torch
from nnunetv2.run.run_training import run_training

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.nnunet_plugin.prediction import CasePredictor, TrainedModel
from nnunet_fedmepd.runtime.finished_run import open_finished_run
from nnunet_fedmepd.runtime.local import LocalRun, NoObserver
from nnunet_fedmepd.runtime.preparation import prepare
from nnunet_fedmepd.runtime.run_folder import RunError, RunFolder, flat_differences
from nnunet_fedmepd.runtime.running import identity, run_federation
from nnunet_fedmepd.runtime.workers import WorkerSettings, start_workers
from tests.runtime.held_out_cases import hold_out_cases
from tests.runtime.small_federation import CONSOLE, alike, checkpoint, results_folder, run, small_federation

CPU = torch.device("cpu")
CALIBRATION = "calibration: 'off' there, 'residual' here"


class Interrupted:
    """Workers that are interrupted when the first model is written."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.workers = start_workers(settings)
        self.take_turns, self.close = self.workers.take_turns, self.workers.close

    def finish(self, sites, anchors):
        yield next(self.workers.finish(sites, anchors))
        raise KeyboardInterrupt


def train_alone(monkeypatch) -> None:
    """Train site a for a step, as nnUNetv2_train does."""
    with monkeypatch.context() as alone:
        for name in ("NUM_EPOCHS", "NUM_ITERATIONS_PER_EPOCH", "NUM_VAL_ITERATIONS_PER_EPOCH"):
            alone.setenv(f"FEDMEPD_{name}", "1")
        alone.setenv("FEDMEPD_FINAL_VALIDATION", "0")
        run_training("Dataset501_a", "3d_fullres", "all", "FedMEPDTrainer", "FedMEPDTinyPlans", device=CPU)


def test_a_complete_run_that_is_started_again_and_interrupted_is_still_finished(datasets, tmp_path):
    run(small_federation(), tmp_path)
    models, prepared, folder = open_finished_run(tmp_path).results, prepare(small_federation()), RunFolder(tmp_path)
    run_id = folder.open(identity(prepared), flat_differences)

    def start_again() -> None:
        with pytest.raises(KeyboardInterrupt):
            LocalRun(prepared, run_id, folder, NoObserver(), start=Interrupted).run()

    start_again()
    assert open_finished_run(tmp_path).results == models
    (models["b"] / "checkpoint_final.pth").unlink()
    start_again()
    with pytest.raises(RunError, match="has not ended"):
        open_finished_run(tmp_path)


def test_a_model_that_nnunets_command_trained_over_that_of_a_run_is_not_the_runs(datasets, tmp_path, monkeypatch):
    weights, ended = run(small_federation(), tmp_path), open_finished_run(tmp_path)
    assert ended.model("a", "best").file.is_file()
    train_alone(monkeypatch)
    assert not alike({"a": weights["a"]}, {"a": checkpoint("a", 501)["network_weights"]})

    with pytest.raises(RunError, match="The model of site 'a' is gone"):
        ended.model("a", "final")
    assert ended.model("b", "final").file.is_file()
    with pytest.raises(RunError, match=r"models of another training[^\n]*\n[^\n]*Dataset501_a[^\n]*\nPass --overwrite"):
        run_federation(small_federation(), tmp_path, CONSOLE)

    assert alike(weights, run(small_federation(), tmp_path))
    assert ended.model("a", "final").file.is_file()
    assert not ended.model("a", "best").file.is_file(), "the other training's would be taken for the run's"


def test_models_of_another_fold_are_not_made_unusable_by_other_plans_unless_asked(datasets, tmp_path):
    hold_out_cases()
    for file in datasets.preprocessed.glob("*/splits_final.json"):
        file.write_text(json.dumps(2 * json.loads(file.read_text())))
    run_federation(small_federation(run={"fold": 0}), tmp_path / "first", CONSOLE)
    ended, plans = open_finished_run(tmp_path / "first"), results_folder("a", 501) / "plans.json"
    before = plans.read_bytes()

    other_network = small_federation(run={"fold": 1}, method={"variant": "local"})
    with pytest.raises(RunError, match=r"(?s)models of other folds.*Dataset500_lead.*fold_0.*Dataset501_a.*--over"):
        run_federation(other_network, tmp_path / "other", CONSOLE)
    assert plans.read_bytes() == before
    assert not plans.with_name("fold_1").exists()

    same_network = small_federation(1, run={"fold": 1}, method={"variant": "fedmema"})
    run_federation(same_network, tmp_path / "same", CONSOLE)
    assert CasePredictor(ended.model("a", "final"), CPU).modalities == ("T1ce",)

    run_federation(other_network, tmp_path / "other", CONSOLE, overwrite=True)
    with pytest.raises(RunError, match="The model of site 'a' is gone"):
        ended.model("a", "final")


def test_models_that_nnunets_command_trained_of_another_fold_stay_usable_beside_a_run(datasets, tmp_path, monkeypatch):
    hold_out_cases()
    train_alone(monkeypatch)
    run_federation(small_federation(1, run={"fold": 0}), tmp_path, CONSOLE)
    assert CasePredictor(TrainedModel(results_folder("a", 501) / "fold_all", "final"), CPU).modalities == ("T1ce",)


def test_nnunets_command_does_not_make_a_runs_models_of_another_fold_unusable(datasets, tmp_path, monkeypatch):
    hold_out_cases()
    run_federation(small_federation(1, run={"fold": 0}, method={"variant": "local"}), tmp_path, CONSOLE)
    plans = results_folder("a", 501) / "plans.json"
    before = plans.read_bytes()
    with pytest.raises(ConfigurationError, match=rf"(?s)fold_0.*{CALIBRATION}.*nnUNet_results"):
        train_alone(monkeypatch)
    assert plans.read_bytes() == before
    assert not list(plans.parent.glob("fold_all/checkpoint_*.pth"))


def test_nnunets_command_does_not_score_a_runs_model_with_another_network(datasets, tmp_path):
    hold_out_cases()
    run_federation(small_federation(1, run={"fold": 0}, method={"variant": "local"}), tmp_path, CONSOLE)
    dataset = ("Dataset501_a", "3d_fullres", 0, "FedMEPDTrainer", "FedMEPDTinyPlans")
    with pytest.raises(ConfigurationError, match=rf"(?s)checkpoint_final.pth.*{CALIBRATION}"):
        run_training(*dataset, only_run_validation=True, device=CPU)
