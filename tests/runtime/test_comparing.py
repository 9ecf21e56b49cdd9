"""`fedmepd compare` as a user meets it, on the small federation."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_fedmepd.cli import main
from nnunet_fedmepd.runtime.running import run_federation
from tests.nnunet_plugin.small_dataset import BRATS
from tests.runtime.held_out_cases import N_TEST_CASES, copy_folders, dataset, hold_out_cases, hold_out_test_cases
from tests.runtime.small_federation import CONSOLE, OWNED, make_datasets, small_federation
from tests.runtime.test_commands import FILE

ROUNDS, STEPS = 2, 2
METHODS = ("alone=local", "pooled")
DATA = "FedMEPDTinyPlans_3d_fullres"


def compare(folder: Path, *options: str, seeds: str = "1") -> int:
    methods = ("--methods", ",".join(METHODS), "--pooled-factor", "2", "--fold", "0")
    return main(
        ["compare", str(folder / "small.toml"), "--out", str(folder / "out"), *methods, "--seeds", seeds, *options]
    )


@pytest.fixture(scope="module")
def original(planned_datasets, tmp_path_factory) -> Path:
    """nnU-Net's folders, a federation file, and a comparison that has ended."""
    folder = tmp_path_factory.mktemp("compared")
    with mock.patch.dict(os.environ, copy_folders(planned_datasets, folder)):
        hold_out_cases()
        (folder / "small.toml").write_text(FILE.format(rounds=ROUNDS))
        assert compare(folder) == 0
    return folder


@pytest.fixture
def compared(original, tmp_path, monkeypatch) -> Path:
    """A copy of the comparison for one test."""
    for name, value in copy_folders(original, tmp_path).items():
        monkeypatch.setenv(name, value)
    shutil.copytree(original / "out", tmp_path / "out")
    (tmp_path / "small.toml").write_text((original / "small.toml").read_text())
    return tmp_path


def rows(folder: Path, table: str = "comparison.csv") -> list[dict[str, str]]:
    with (folder / "out" / table).open(newline="") as file:
        return list(csv.DictReader(file))


def checkpoints(folder: Path) -> dict[str, int]:
    """Return when every checkpoint was written."""
    files = (folder / "out").rglob("checkpoint_*.pth")
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


def test_every_site_has_a_curve_of_every_method_also_of_the_pool_that_stands_for_it(compared):
    with (compared / "out" / "curves.csv").open(newline="") as file:
        points = list(csv.DictReader(file))
    rounds = {"alone": ROUNDS, "pooled": 2 * ROUNDS}
    expected = {(m, site, str(STEPS * (i + 1))) for m, n in rounds.items() for site in OWNED for i in range(n)}
    assert {(point["method"], point["site"], point["steps"]) for point in points} == expected


def test_a_curve_counts_the_rounds_that_a_site_took_part_in_once_each(compared):
    file = compared / "out" / "alone" / "seed_1" / "run" / "rounds.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    late = [line for line in lines if (line.get("site"), line["round"]) != ("b", 1)]
    again = [line for line in lines if (line.get("site"), line["round"]) == ("lead", 2)]
    file.write_text("".join(json.dumps(line) + "\n" for line in late + again))
    assert compare(compared, "--show") == 0
    with (compared / "out" / "curves.csv").open(newline="") as table:
        steps = [(point["site"], int(point["steps"])) for point in csv.DictReader(table) if point["method"] == "alone"]
    others = [(site, number * STEPS) for site in OWNED if site != "b" for number in (1, 2)]
    assert sorted(steps) == sorted([("b", STEPS), *others])


def test_a_comparison_that_was_moved_is_shown_whole(compared):
    curves = (compared / "out" / "curves.csv").read_text()
    for file in (compared / "out").rglob("status.json"):
        status = json.loads(file.read_text())
        file.write_text(json.dumps(status | {"results": dict.fromkeys(status["results"], "/gone/fold_0")}))
    (compared / "out" / "curves.csv").unlink()
    assert compare(compared, "--show") == 0
    assert (compared / "out" / "curves.csv").read_text() == curves


def test_every_method_is_scored_on_every_test_case_at_the_end_and_at_its_best(compared):
    scores = rows(compared)
    expected = {
        (method, checkpoint, site, f"test{i}")
        for method in ("alone", "pooled")
        for checkpoint in ("final", "best")
        for site, n_cases in N_TEST_CASES.items()
        for i in range(n_cases)
    }
    assert {(row["method"], row["checkpoint"], row["site"], row["case"]) for row in scores} == expected
    at_the_end = {row["method"]: int(row["steps"]) for row in scores if row["checkpoint"] == "final"}
    assert at_the_end == {"alone": ROUNDS * STEPS, "pooled": 2 * ROUNDS * STEPS}
    best = {int(row["steps"]) for row in scores if (row["method"], row["checkpoint"]) == ("alone", "best")}
    assert best <= {STEPS, 2 * STEPS}
    assert (compared / "out" / "comparison.png").is_file()


def test_methods_are_compared_without_small_components_on_the_same_models(compared, capsys):
    before, scores = checkpoints(compared), rows(compared)
    chosen = itertools.cycle([1000.0, 0.0, 0.0])  # core, edema, enhancing
    with mock.patch("nnunet_fedmepd.runtime.dropping.choose_limit", side_effect=chosen) as choose:
        assert compare(compared, "--drop-small") == 0
    assert choose.call_count == 3 * 2 * 2  # regions, methods, checkpoints
    assert checkpoints(compared) == before
    assert rows(compared) == scores
    large = rows(compared, "comparison_large.csv")
    assert [row["case"] for row in large] == [row["case"] for row in scores]
    assert {row["prediction_ml"] for row in large if row["region"] == "core"} == {"0.0"}
    edema = [[row["dice"] for row in table if row["region"] == "edema"] for table in (scores, large)]
    assert edema[0] == edema[1]
    assert (compared / "out" / "comparison_large.png").is_file()
    assert "small components dropped" in capsys.readouterr().out


def test_limits_are_chosen_on_nnunets_own_folds_of_data_that_were_never_trained_on(nnunet_paths, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    make_datasets({"lead": BRATS}, n_cases=5)
    hold_out_test_cases({"lead": 1})
    head, _, rest = FILE.format(rounds=1).partition('[[site]]\nname = "a"')
    (tmp_path / "small.toml").write_text(head + "[planning]" + rest.partition("[planning]")[2])
    command = ["compare", str(tmp_path / "small.toml"), "--out", str(tmp_path / "out"), "--fold", "0", "--drop-small"]
    assert main([*command, "--methods", "local"]) == 0
    (split, *_) = json.loads((dataset("lead").preprocessed / "splits_final.json").read_text())  # made by the training
    (table,) = (tmp_path / "out").rglob("evaluation/final_val/cases.csv")
    with table.open(newline="") as file:
        assert sorted({row["case"] for row in csv.DictReader(file)}) == sorted(split["val"])


def test_another_file_is_compared_with_the_same_fold_and_rounds(compared, capsys):
    other = compared / "other.toml"
    other.write_text((compared / "small.toml").read_text().replace(f"rounds = {ROUNDS}", "rounds = 9"))
    command = ["compare", str(compared / "small.toml"), "--out", str(compared / "out"), "--fold", "0"]
    assert main([*command, "--rounds", "1", "--methods", f"fedavg,other={other}"]) == 0  # the files' fold is `all`
    for method in ("fedavg", "other"):
        known = json.loads((compared / "out" / method / "seed_1" / "run" / "run.json").read_text())
        assert known["identity"]["federation"]["rounds"] == 1
        assert known["identity"]["federation"]["run"]["fold"] == 0


def test_limits_need_validation_cases(compared, capsys):
    command = ["compare", str(compared / "small.toml"), "--out", str(compared / "out"), "--show"]
    assert main([*command, "--methods", METHODS[0], "--drop-small"]) == 2  # the file's fold is `all`
    assert "--fold 0" in capsys.readouterr().err


def test_what_is_done_is_not_done_again_and_can_be_shown_before_the_rest_is_done(compared, capsys):
    before, scores = checkpoints(compared), rows(compared)
    assert compare(compared) == 0
    assert (checkpoints(compared), rows(compared)) == (before, scores)
    shutil.rmtree(compared / "out" / "alone")
    assert compare(compared, "--show", seeds="1,2") == 0
    assert {(row["method"], row["seed"]) for row in rows(compared)} == {("pooled", "1")}
    assert "pooled" in capsys.readouterr().out
    assert compare(compared) == 0
    dice = [(row["method"], row["site"], row["case"], row["region"], row["dice"]) for row in rows(compared)]
    assert dice == [(row["method"], row["site"], row["case"], row["region"], row["dice"]) for row in scores]


def test_a_method_gets_the_weights_of_fedmepd_run_and_leaves_the_users_folders_alone(compared, tmp_path):
    federation = small_federation(ROUNDS, run={"fold": 0}).as_variant("local").model_copy(update={"seed": 1})
    assert not any((compared / "nnUNet_results").iterdir())
    run_federation(federation, tmp_path / "run", CONSOLE)
    model = "nnUNet_results/Dataset502_b/FedMEPDTrainer__FedMEPDTinyPlans__3d_fullres/fold_0/checkpoint_final.pth"
    alone, compared_to = (
        torch.load(folder / model, weights_only=False)["network_weights"]
        for folder in (compared, compared / "out" / "alone" / "seed_1")
    )
    assert all(torch.equal(alone[name], compared_to[name]) for name in alone)


def test_pooled_data_are_the_channels_of_all_sites_that_own_them_and_their_folds_together(compared, original):
    pools = {folder.name: folder for folder in (compared / "out" / "pooled_data").iterdir()}
    assert sorted(name.partition("pooled_")[2] for name in pools) == ["T1-T1ce-T2-FLAIR", "T1ce", "T2-FLAIR"]
    (pool,) = (folder for name, folder in pools.items() if name.endswith("T2-FLAIR") and "T1" not in name)
    cases = nnUNetDatasetBlosc2(str(pool / DATA))
    assert sorted(cases.identifiers) == [f"b__case{i}" for i in range(4)] + [f"lead__case{i}" for i in range(2)]
    own, leads = (nnUNetDatasetBlosc2(str(dataset(site).preprocessed / DATA)) for site in ("b", "lead"))
    for pooled, source, channels in (("b__case1", own, slice(None)), ("lead__case1", leads, slice(2, 4))):
        data, seg, _, properties = cases.load_case(pooled)
        expected, expected_seg, _, expected_properties = source.load_case("case1")
        assert np.array_equal(data[:], expected[:][channels])
        assert np.array_equal(seg[:], expected_seg[:])
        assert properties["class_locations"].keys() == expected_properties["class_locations"].keys()
    assert (original / pool.relative_to(compared) / DATA / "b__case1.b2nd").stat().st_nlink == 2  # no copy
    (fold,) = json.loads((pool / "splits_final.json").read_text())
    assert sorted(fold["val"]) == ["b__case0", "lead__case0"]
    assert len(fold["train"]) == 4


def test_a_site_is_predicted_by_the_pool_of_its_modalities(compared):
    results = compared / "out" / "pooled" / "seed_1" / "nnUNet_results"
    trained = {
        tuple(json.loads((folder / "dataset.json").read_text())["channel_names"].values())
        for folder in results.glob("*/FedMEPDTrainer__FedMEPDTinyPlans__3d_fullres")
    }
    assert trained == set(OWNED.values())
    shown = {row["site"]: row["modalities"] for row in rows(compared) if row["method"] == "pooled"}
    assert shown == {"lead": "T1+T1ce+T2+FLAIR", "b": "T2+FLAIR"}


def test_changed_settings_do_not_mix_with_what_was_trained_before(compared, capsys):
    file = compared / "small.toml"
    file.write_text(file.read_text().replace("patience = 1", "patience = 2"))
    assert compare(compared) == 2
    assert "was started with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--baseline", "local"), "The baseline 'local' is none of the methods"),
        (("--seeds", "1,1"), "a seed is named twice"),
        (("--seeds", "one"), "expected whole numbers"),
        (("--fold", "7"), "there is no fold 7"),
        (("--pooled-factor", "0"), "--pooled-factor 0: expected 1 or more"),
    ],
)
def test_what_cannot_be_compared_is_told_before_anything_is_trained(compared, capsys, options, message):
    before = checkpoints(compared)
    assert compare(compared, *options) == 2
    assert message in capsys.readouterr().err
    assert checkpoints(compared) == before
