"""`fedmepd evaluate` as a user meets it, on a small federation that has ended."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import SimpleITK
import torch
from filelock import FileLock
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_fedmepd.cli import main
from nnunet_fedmepd.evaluation.small_components import drop_small_components, write_limits
from nnunet_fedmepd.evaluation.tables import CaseScore, EvaluationFolder, read_scores, write_scores
from nnunet_fedmepd.runtime.owned_results import OWNER
from nnunet_fedmepd.runtime.running import run_federation
from tests.nnunet_plugin.small_dataset import write_image
from tests.runtime.held_out_cases import N_TEST_CASES, NNUNET_FOLDERS, copy_folders, dataset, hold_out_cases
from tests.runtime.small_federation import CONSOLE, OWNED, results_folder, small_federation
from tests.runtime.test_commands import FILE

REGIONS = ("core", "edema", "enhancing")


@pytest.fixture(scope="module")
def original(planned_datasets, tmp_path_factory) -> Path:
    """nnU-Net's folders and that of a run that ended; every site left one training case out for validation."""
    folder = tmp_path_factory.mktemp("ended")
    with mock.patch.dict(os.environ, copy_folders(planned_datasets, folder)):
        hold_out_cases()
        run_federation(small_federation(run={"fold": 0}), folder / "run", CONSOLE)
    return folder


@pytest.fixture
def ended(original, tmp_path, monkeypatch) -> EvaluationFolder:
    """A copy of the run for one test, moved together with its models: its evaluation."""
    for name, value in copy_folders(original, tmp_path).items():
        monkeypatch.setenv(name, value)
    shutil.copytree(original / "run", tmp_path / "run")
    return EvaluationFolder(tmp_path / "run")


def evaluate(folder: EvaluationFolder, *options: str) -> list[CaseScore]:
    """Run the command and return the table of sites."""
    assert main(["evaluate", str(folder.run), "--device", "cpu", *options]) == 0
    return read_scores(folder.cases)


def times(folder: EvaluationFolder) -> dict[str, int]:
    """Return when each prediction was written."""
    return {str(file.relative_to(folder.path)): file.stat().st_mtime_ns for file in folder.path.rglob("*.nii.gz")}


def model(site: str) -> Path:
    return results_folder(site, 500 + list(OWNED).index(site)) / "fold_0" / "checkpoint_final.pth"


def read(file: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def test_every_test_case_is_scored_in_every_region_and_sites_without_any_are_named(ended, capsys):
    scores = evaluate(ended)
    assert [(score.site, score.case, score.region) for score in scores] == [
        (site, f"test{i}", region) for site in N_TEST_CASES for i in range(N_TEST_CASES[site]) for region in REGIONS
    ]
    assert {score.modalities for score in scores} == {"T1+T1ce+T2+FLAIR", "T2+FLAIR"}
    printed = capsys.readouterr().out
    assert "site a: no held-out cases" in printed
    last = scores[-1]
    reference, prediction = (
        read(dataset("b").raw / "labelsTs/test1.nii.gz"),
        read(ended.predictions("b") / "test1.nii.gz"),
    )
    both, sizes = ((reference == 3) & (prediction == 3)).sum(), (reference == 3).sum() + (prediction == 3).sum()
    assert last.dice == pytest.approx(2 * both / sizes)
    assert last.reference_ml == pytest.approx((reference == 3).sum() * 1.2 / 1000)


def test_predictions_are_those_of_nnunets_own_command(ended, tmp_path):
    evaluate(ended)
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model("b").parents[1]), (0,))
    (tmp_path / "nnunet").mkdir()
    predictor.predict_from_files_sequential(str(dataset("b").raw / "imagesTs"), str(tmp_path / "nnunet"))
    for case in ("test0", "test1"):
        own, expected = (read(folder / f"{case}.nii.gz") for folder in (ended.predictions("b"), tmp_path / "nnunet"))
        assert (own == expected).all()


def test_only_what_is_new_is_predicted(ended):
    scores, before = evaluate(ended), times(ended)
    assert evaluate(ended) == scores
    assert times(ended) == before

    cut_short = [score for score in scores if score.case != "test1"]
    write_scores(ended.cases, cut_short)
    assert evaluate(ended) == scores
    assert changed(before, times(ended)) == {"predictions/b/test1.nii.gz"}

    before = times(ended)
    shutil.copyfile(dataset("b").raw / "labelsTs/test1.nii.gz", dataset("b").raw / "labelsTs/test0.nii.gz")
    evaluate(ended)
    assert changed(before, times(ended)) == {"predictions/b/test0.nii.gz"}

    before, checkpoint = times(ended), torch.load(model("lead"), weights_only=False)
    torch.save({**checkpoint, "optimizer_state": {}}, model("lead"))
    evaluate(ended)
    assert times(ended) == before

    bias = "decoder.merges.0.0.conv.bias"
    checkpoint["network_weights"][bias] += 1
    torch.save(checkpoint, model("lead"))
    evaluate(ended)
    assert changed(before, times(ended)) == {"predictions/lead/test0.nii.gz"}


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def test_the_lead_is_scored_under_every_subset_of_its_modalities(ended, tmp_path, capsys):
    scores = evaluate(ended, "--subsets")
    subsets = read_scores(ended.subsets)
    assert len({score.modalities for score in subsets}) == 15
    assert len(subsets) == 15 * len(REGIONS)
    everything = [score for score in subsets if score.modalities == "T1+T1ce+T2+FLAIR"]
    assert everything == [score for score in scores if score.site == "lead"]
    assert "●" in capsys.readouterr().out


def test_a_hidden_modality_is_a_blank_image(ended):
    evaluate(ended, "--subsets")
    hidden = [score.prediction_ml for score in read_scores(ended.subsets) if score.modalities == "T1ce+FLAIR"]
    for channel in (0, 2):
        image = dataset("lead").raw / "imagesTs" / f"test0_{channel:04d}.nii.gz"
        write_image(image, np.zeros_like(read(image)))
    blank = [score.prediction_ml for score in evaluate(ended) if score.site == "lead"]
    assert blank == pytest.approx(hidden)


def test_validation_cases_and_the_best_checkpoint_go_to_folders_of_their_own(ended):
    evaluate(ended)
    best = EvaluationFolder(ended.run, "best", "val")
    scores = evaluate(best, "--checkpoint", "best", "--split", "val")
    assert [(score.site, score.case) for score in scores[:: len(REGIONS)]] == [(site, "case0") for site in OWNED]
    assert {score.case for score in read_scores(ended.cases)} == {"test0", "test1"}


def test_a_best_checkpoint_that_is_the_last_one_is_not_predicted_again(ended):
    checkpoint = torch.load(model("b"), weights_only=False)
    torch.save(checkpoint, model("b").with_name("checkpoint_best.pth"))
    lead = torch.load(model("lead"), weights_only=False)
    lead["network_weights"]["decoder.merges.0.0.conv.bias"] += 1
    torch.save(lead, model("lead").with_name("checkpoint_best.pth"))
    final = evaluate(ended)
    best = EvaluationFolder(ended.run, "best")
    for site in ("b", "lead"):  # a mark that a new prediction would not bear
        file = ended.predictions(site) / "test0.nii.gz"
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(file)) * 0 + 77, str(file))
    scores = evaluate(best, "--checkpoint", "best")
    assert [score for score in scores if score.site == "b"] == [score for score in final if score.site == "b"]
    assert (read(best.predictions("b") / "test0.nii.gz") == 77).all()
    assert not (read(best.predictions("lead") / "test0.nii.gz") == 77).any()


def choosing(**limits: float):
    """Let limits be chosen as said, instead of on a single validation case; they are chosen region by region."""
    chosen = itertools.cycle(limits.get(region, 0.0) for region in REGIONS)
    return mock.patch("nnunet_fedmepd.runtime.dropping.choose_limit", side_effect=chosen)


def test_small_components_are_dropped_below_limits_and_what_was_predicted_stays(ended, capsys):
    before, cleared = evaluate(ended), replace(ended, large_only=True)
    with choosing(edema=0.05) as choose:
        after, stamps = evaluate(cleared, "--drop-small"), times(cleared)
        assert evaluate(cleared, "--drop-small") == after
    assert times(cleared) == stamps
    assert [len(call.args[0]) for call in choose.call_args_list] == [len(OWNED)] * 2 * len(REGIONS)
    assert "dropped: components of edema below 0.05 ml" in capsys.readouterr().out

    assert read_scores(ended.cases) == before
    pairs = zip(before, after, strict=True)
    assert {old.region for old, new in pairs if replace(new, made_of=old.made_of) != old} == {"edema"}
    regions = {region: (label,) for label, region in enumerate(REGIONS, 1)}
    for file in ended.predictions("b").iterdir():
        expected = drop_small_components(read(file), (1.2, 1.0, 1.0), regions, {"edema": 0.05})
        assert (read(cleared.predictions("b") / file.name) == expected).all()


def test_predictions_of_new_cases_are_cleared_by_the_same_limits(ended, tmp_path, capsys):
    with choosing(edema=1000.0):
        cleared = evaluate(replace(ended, large_only=True), "--drop-small")
    edema = [score for score in read_scores(ended.cases) if (score.site, score.region) == ("b", "edema")]
    assert any(score.prediction_ml for score in edema)
    assert not any(score.prediction_ml for score in cleared if score.region == "edema")
    predictions, out = tmp_path / "predictions", tmp_path / "out"
    shutil.copytree(ended.predictions("b"), predictions)
    command = ["drop-small", str(predictions), str(out), "--run", str(ended.run)]
    assert main(command) == 2
    assert "This is no folder of predictions" in capsys.readouterr().err
    for name in ("dataset.json", "plans.json"):
        shutil.copyfile(model("b").parents[1] / name, predictions / name)
    assert main(command) == 0
    assert (
        f"2 predictions, {sum(score.prediction_ml > 0 for score in edema)} of them changed" in capsys.readouterr().out
    )
    for file in replace(ended, large_only=True).predictions("b").iterdir():
        assert (read(out / file.name) == read(file)).all()
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    shutil.rmtree(out)
    write_limits(ended.limits, {"edema": 1000.0, "cyst": 1.0})
    assert main(command) == 2
    assert "The limits are not for these predictions" in capsys.readouterr().err
    assert not out.exists()


def test_limits_are_not_tried_on_the_cases_that_chose_them(ended, capsys):
    assert main(["evaluate", str(ended.run), "--drop-small", "--split", "val"]) == 2
    assert "are no measure of them" in capsys.readouterr().err


def test_validation_cases_that_were_trained_on_are_not_evaluated(ended, capsys):
    file = dataset("b").preprocessed / "splits_final.json"
    (fold,) = json.loads(file.read_text())
    file.write_text(json.dumps([{"train": fold["val"], "val": fold["train"]}]))
    for options in (("--split", "val"), ("--drop-small",)):
        assert main(["evaluate", str(ended.run), "--device", "cpu", *options]) == 2
        assert f"{file} is not the one that site 'b' was trained with" in capsys.readouterr().err.replace("\n", " ")


def test_limits_need_validation_cases(ended, capsys):
    file = ended.run / "run.json"
    file.write_text(file.read_text().replace('"fold": 0', '"fold": "all"'))
    assert main(["evaluate", str(ended.run), "--drop-small", "--device", "cpu"]) == 2
    assert "needs validation cases" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--checkpoint", "best"), ("--split", "val")])
def test_without_validation_cases_there_is_no_best_checkpoint(ended, capsys, options):
    file = ended.run / "run.json"
    file.write_text(file.read_text().replace('"fold": 0', '"fold": "all"'))
    assert main(["evaluate", str(ended.run), *options]) == 2
    assert "needs validation cases" in capsys.readouterr().err


def test_a_federation_that_holds_out_nothing_is_an_error(ended, capsys):
    for site in N_TEST_CASES:
        shutil.rmtree(dataset(site).raw / "labelsTs")
    assert main(["evaluate", str(ended.run)]) == 2
    assert "No site has cases to evaluate on" in capsys.readouterr().err


def test_splits_that_were_cut_off_are_named(ended, capsys):
    file = dataset("b").preprocessed / "splits_final.json"
    file.write_text(file.read_text()[:20])
    assert main(["evaluate", str(ended.run), "--split", "val"]) == 2
    assert f"{file} is no valid JSON" in capsys.readouterr().err


def test_a_key_that_this_version_does_not_know_is_told_in_the_words_of_the_file(ended, capsys):
    file = ended.run / "run.json"
    file.write_text(file.read_text().replace('"lead_share"', '"share_of_lead"'))
    assert main(["evaluate", str(ended.run)]) == 2
    assert f"{file} has 1 mistake:\n  method.share_of_lead: unknown key" in capsys.readouterr().err


def test_a_run_that_has_not_ended_is_not_evaluated(ended, capsys):
    file = ended.run / "status.json"
    file.write_text(file.read_text().replace('"finished"', '"running"'))
    assert main(["evaluate", str(ended.run)]) == 2
    assert "has not ended" in capsys.readouterr().err


def test_two_processes_do_not_write_one_table(ended, capsys):
    ended.path.mkdir(parents=True)
    with FileLock(ended.path / "lock"):
        assert main(["evaluate", str(ended.run)]) == 2
    assert "Another process evaluates" in capsys.readouterr().err


def test_models_of_another_run_are_not_taken_for_its_own(ended, original, capsys):
    model_folder = Path("nnUNet_results") / model("b").parent.relative_to(os.environ["nnUNet_results"])
    owners = [folder / model_folder / OWNER for folder in (original, ended.run.parent)]
    own = owners[0].read_text()
    for file in owners:
        file.write_text(json.dumps({"run_id": "another", "federation": "other"}))
    assert main(["evaluate", str(ended.run)]) == 2
    owners[0].write_text(own)  # other tests need it
    assert "The model of site 'b' is gone" in capsys.readouterr().err


def test_a_site_of_a_federation_over_a_network_evaluates_its_own_model(ended, tmp_path, capsys, monkeypatch):
    pytest.importorskip("cryptography", reason="deployment needs the extra: pip install '.[deployment]'")
    scores = [score for score in evaluate(ended) if score.site == "b"]
    file, kit = tmp_path / "small.toml", tmp_path / "kits" / "sites" / "b"
    file.write_text(FILE.format(rounds=2).replace("dataset = 502", "dataset = 999") + "fold = 0\n")
    assert main(["deploy", "init", str(file), "--out", str(tmp_path / "kits"), "--host", "127.0.0.1"]) == 0
    folders = [f'{name.lower()} = "{os.environ[name]}"' for name in NNUNET_FOLDERS]
    (kit / "site.toml").write_text("\n".join([*folders, "dataset = 502"]))
    for name in NNUNET_FOLDERS:
        monkeypatch.setenv(name, "/elsewhere")  # the kit's own are taken
    for site in ("lead", "a"):  # others' data are not here
        shutil.rmtree(tmp_path / "nnUNet_raw" / f"Dataset{500 + list(OWNED).index(site)}_{site}")

    command = ["site", "evaluate", str(kit), "--device", "cpu"]
    assert main(command) == 0
    (table,) = (kit / "state").glob("*/evaluation/final/cases.csv")
    assert read_scores(table) == scores
    assert main([*command, "--subsets"]) == 2
    assert "needs a lead" in capsys.readouterr().err
    next((tmp_path / "nnUNet_results").glob("*_b/*/fold_0/checkpoint_final.pth")).unlink()
    assert main(command) == 2
    assert "has no model of a federation that has ended" in capsys.readouterr().err
