"""A federation on one machine: what it leaves, what repeats to the bit, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.federation.storage import StateFileError
from nnunet_fedmepd.runtime.local import LocalRun, NoObserver
from nnunet_fedmepd.runtime.preparation import default_run_folder, prepare
from nnunet_fedmepd.runtime.run_folder import RunError, RunFolder, flat_differences
from nnunet_fedmepd.runtime.running import identity, run_federation
from nnunet_fedmepd.runtime.workers import Missed, WorkerSettings, start_workers
from tests.nnunet_plugin.small_dataset import BRATS, SmallDataset
from tests.runtime.held_out_cases import hold_out_cases
from tests.runtime.small_federation import (
    CONSOLE,
    alike,
    checkpoint,
    final_weights,
    make_datasets,
    results_folder,
    run,
    small_federation,
)


def test_every_site_gets_a_normal_results_folder_of_nnunet(datasets, tmp_path):
    run(small_federation(), tmp_path / "run")
    for name, dataset in (("lead", 500), ("a", 501), ("b", 502)):
        folder = results_folder(name, dataset)
        files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
        assert {"plans.json", "dataset.json", "dataset_fingerprint.json"} <= files
        assert {"fold_all/checkpoint_final.pth", "fold_all/progress.png"} <= files
    saved = checkpoint("a", 501)
    assert saved["trainer_name"] == "FedMEPDTrainer"
    assert saved["network_weights"]["calibrations.0.in_use"]
    assert saved["network_weights"]["calibrations.0.valid"].any()
    assert not checkpoint("lead", 500)["network_weights"]["calibrations.0.in_use"]


def test_a_sites_shared_filters_start_each_round_from_the_leads_model(datasets, tmp_path):
    frozen = {"initial_lr": 1e-12, "weight_decay": 0.0}
    weights = run(small_federation(rounds=2, training=frozen), tmp_path / "run")
    for site in ("a", "b"):
        own = weights[site]["decoder.merges.0.0.conv.weight"]
        torch.testing.assert_close(own, weights["lead"]["decoder.merges.0.0.conv.weight"], atol=1e-6, rtol=0)
    torch.testing.assert_close(
        weights["a"]["encoders.T1ce.stages.0.0.conv.weight"],
        weights["lead"]["encoders.T1ce.stages.0.0.conv.weight"],
        atol=1e-6,
        rtol=0,
    )


def test_two_runs_with_one_seed_are_equal_to_the_bit_and_another_seed_is_another_run(datasets, tmp_path):
    first = run(small_federation(), tmp_path / "first")
    second = run(small_federation(), tmp_path / "second")
    assert alike(first, second)
    other = small_federation().model_copy(update={"seed": 7})
    assert not alike(first, run(other, tmp_path / "third"))


def test_several_workers_give_the_weights_of_one(datasets, tmp_path):
    one = run(small_federation(), tmp_path / "one")
    assert alike(one, run(small_federation(run={"workers": 2}), tmp_path / "two"))


@pytest.mark.parametrize(
    "method",
    [
        {"variant": "local"},
        {"variant": "fedavg"},
        {"variant": "fedmema"},
        {"anchors": False},
        {"decoder": "shared"},
        {"n_anchors_per_class": 1},
        {"lead_role": "none", "anchors": False},
        {"calibration": "replace", "optimizer_state": "reset"},
        {"personalization": {"leave_one_out": True, "patience": 1, "warm_up_rounds": 0, "update_memory": 0.5}},
    ],
    ids=lambda method: "-".join(f"{key}={value}" for key, value in method.items() if key != "personalization"),
)
def test_every_variant_runs(datasets, tmp_path, method):
    federation = small_federation(rounds=3, method=method)
    run_folder = tmp_path / "run"
    if method.get("lead_role") == "none":
        run_federation(federation, run_folder, CONSOLE)
        assert not results_folder("lead", 500).exists()
        return
    weights = run(federation, run_folder)
    sites = {site: {key for key in weights[site] if key.startswith("encoders.")} for site in weights}
    if method.get("variant") == "fedavg":
        assert all(key.startswith("encoders.all.") for key in sites["a"])
    else:
        assert all(key.startswith("encoders.T1ce.") for key in sites["a"])
    assert all(tensor.isfinite().all() for site in weights.values() for tensor in site.values())


def test_local_training_exchanges_nothing(datasets, tmp_path):
    together = run(small_federation(method={"variant": "local"}), tmp_path / "together")
    assert sum(line["bytes_sent"] for line in RunFolder(tmp_path / "together").journal()) == 0
    others = {"absent_rounds": [1, 2]}
    federation = small_federation(method={"variant": "local"}, sites={"lead": others, "b": others})
    run_federation(federation, tmp_path / "alone", CONSOLE, overwrite=True)
    alone = checkpoint("a", 501)["network_weights"]
    assert all(torch.equal(alone[name], together["a"][name]) for name in alone)


def test_in_fine_tuning_rounds_nothing_travels_and_every_site_goes_on_from_its_own_model(datasets, tmp_path):
    exchanged = run(small_federation(2), tmp_path / "exchanged")
    tuned = run(small_federation(2, method={"fine_tuning_share": 0.5}), tmp_path / "tuned")
    folder = RunFolder(tmp_path / "tuned")
    sent = {(line["round"], line["site"]): line["bytes_sent"] for line in folder.journal()}
    assert all((n_bytes > 0) == (number == 1) for (number, _), n_bytes in sent.items())
    (before, _), (after, _) = (folder.coordinator.load(number) for number in (1, 2))
    model = [key for key in before if key.startswith(("encoder", "decoder"))]
    assert model
    assert all(torch.equal(before[key], after[key]) for key in model)
    assert not any(alike({site: tuned[site]}, {site: exchanged[site]}) for site in tuned)


def test_a_fine_tuning_round_goes_on_without_a_site_that_misses_it(datasets, tmp_path):
    federation, folder = small_federation(2, method={"fine_tuning_share": 0.5}), RunFolder(tmp_path)
    prepared, asked = prepare(federation), []

    class WithoutB:
        def __init__(self, settings: WorkerSettings) -> None:
            self.workers = start_workers(settings)
            self.finish, self.close = self.workers.finish, self.workers.close

        def take_turns(self, round_number, hand_overs, advance):
            if round_number == 2 and "b" in hand_overs:
                asked.append(round_number)
                yield "b", Missed("it is down")
                hand_overs = {site: make for site, make in hand_overs.items() if site != "b"}
            yield from self.workers.take_turns(round_number, hand_overs, advance)

    run_id = folder.open(identity(prepared), flat_differences)
    LocalRun(prepared, run_id, folder, NoObserver(), start=WithoutB, wait_limit_seconds=10.0).run()
    assert asked == [2]
    assert [(line["round"], line["site"]) for line in folder.journal() if "missed" in line] == [(2, "b")]


def test_a_default_that_another_version_has_changed_does_not_change_a_run_unseen(datasets, tmp_path, monkeypatch):
    federation = small_federation(2, method={"personalization": {}})
    run(federation, tmp_path)
    monkeypatch.setattr("nnunet_fedmepd.config.federation.patience_for", lambda n_rounds: 7)
    with pytest.raises(RunError, match=r"personalization\.patience"):
        run(federation, tmp_path)


def test_several_leads_and_full_modality_sites_that_do_not_lead(nnunet_paths, monkeypatch, tmp_path):
    owned = {"lead": BRATS, "lead2": BRATS, "a": BRATS}
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    make_datasets(owned)
    weights = run(small_federation(rounds=3, owned=owned), tmp_path / "run")
    assert weights["a"]["calibrations.0.in_use"]
    assert not weights["lead2"]["calibrations.0.in_use"]


def test_a_site_that_is_absent_for_some_rounds_trains_the_others(datasets, tmp_path):
    federation = small_federation(rounds=4, sites={"a": {"absent_rounds": [1, 3]}})
    run(federation, tmp_path / "run")
    rounds = [line["round"] for line in RunFolder(tmp_path / "run").journal() if line["site"] == "a"]
    assert rounds == [2, 4]
    rates = checkpoint("a", 501)["logging"]["lrs"]
    assert len(rates) == 2


def test_a_run_that_is_complete_is_not_run_again(datasets, tmp_path):
    weights = run(small_federation(), tmp_path / "run")
    journal = RunFolder(tmp_path / "run").journal()
    assert alike(weights, run(small_federation(), tmp_path / "run"))
    assert RunFolder(tmp_path / "run").journal() == journal


def test_a_run_that_was_stopped_while_models_were_written_writes_only_those_that_are_left(datasets, tmp_path):
    weights = run(small_federation(), tmp_path / "run")
    a, b = (
        results_folder(name, dataset) / "fold_all" / "checkpoint_final.pth"
        for name, dataset in (("a", 501), ("b", 502))
    )
    before = a.stat().st_mtime_ns
    b.unlink()
    assert alike(weights, run(small_federation(), tmp_path / "run"))
    assert a.stat().st_mtime_ns == before


def test_models_are_written_anew_after_a_round_that_had_to_be_trained_again(datasets, tmp_path):
    weights, folder = run(small_federation(), tmp_path / "run"), RunFolder(tmp_path / "run")
    a = results_folder("a", 501) / "fold_all" / "checkpoint_final.pth"
    before = a.stat().st_mtime_ns
    for states in (folder.coordinator, folder.site("a")):
        states.file(2).unlink()
    assert alike(weights, run(small_federation(), tmp_path / "run"))
    assert a.stat().st_mtime_ns > before


def test_while_models_are_written_the_log_says_so_and_the_status_whose_are_left(datasets, tmp_path):
    prepared, folder, seen = prepare(small_federation()), RunFolder(tmp_path), []

    class Watched:
        def __init__(self, settings: WorkerSettings) -> None:
            self.workers = start_workers(settings)
            self.take_turns, self.close = self.workers.take_turns, self.workers.close

        def finish(self, sites, anchors):
            for result in self.workers.finish(sites, anchors):
                seen.append((folder.status()["state"], folder.status()["training"]))
                yield result

    run_id = folder.open(identity(prepared), flat_differences)
    LocalRun(prepared, run_id, folder, NoObserver(), start=Watched).run()
    assert seen == [("ending", ["lead", "a", "b"]), ("ending", ["a", "b"]), ("ending", ["b"])]


def test_models_of_another_training_are_not_overwritten_unless_asked(datasets, tmp_path):
    run(small_federation(), tmp_path / "first")
    before = results_folder("a", 501) / "fold_all" / "checkpoint_final.pth"
    content = before.read_bytes()
    with pytest.raises(RunError, match=r"(?s)hold models of another training.*Dataset500_lead.*--overwrite"):
        run_federation(small_federation(), tmp_path / "second", CONSOLE)
    assert before.read_bytes() == content
    run_federation(small_federation(), tmp_path / "third", CONSOLE, overwrite=True)


def test_a_second_process_in_the_same_folder_is_refused(datasets, tmp_path):
    with RunFolder(tmp_path / "run").locked(), pytest.raises(RunError, match="Another process runs this federation"):
        run(small_federation(), tmp_path / "run")


def test_a_changed_federation_file_is_refused_and_what_changed_is_named(datasets, tmp_path):
    run(small_federation(), tmp_path / "run")
    with pytest.raises(RunError, match=r"federation.method.lead_share: 0.3 -> 0.5"):
        run(small_federation(method={"lead_share": 0.5}), tmp_path / "run")


def test_changed_plans_are_refused(datasets, tmp_path):
    run(small_federation(), tmp_path / "run")
    plans = datasets.preprocessed / "Dataset501_a" / "FedMEPDTinyPlans.json"
    plans.write_text(plans.read_text() + "\n")
    with pytest.raises(RunError, match=r"plans.a: "):
        run(small_federation(), tmp_path / "run")


@pytest.mark.parametrize(
    ("fold", "edit", "place"),
    [
        (0, lambda site: split(site, ["case1"], ["case2"]), r"data\.a\.fold: "),
        ("all", lambda site: [file.unlink() for file in site.preprocessed.rglob("case2*.*")], r"data\.a\.fold: "),
        ("all", lambda site: append(site.preprocessed / "dataset.json", "\n"), r"data\.a\.dataset\.json: "),
    ],
    ids=["other splits", "another case", "another description"],
)
def test_changed_data_are_refused(datasets, tmp_path, fold, edit, place):
    hold_out_cases()
    federation = small_federation(1, run={"fold": fold})
    run_federation(federation, tmp_path / "run", CONSOLE)
    run_federation(federation, tmp_path / "run", CONSOLE)
    edit(SmallDataset("Dataset501_a"))
    with pytest.raises(RunError, match=place):
        run_federation(federation, tmp_path / "run", CONSOLE)


def split(site: SmallDataset, train: list[str], val: list[str]) -> None:
    (site.preprocessed / "splits_final.json").write_text(json.dumps([{"train": train, "val": val}]))


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


def test_a_run_of_a_version_that_did_not_write_down_its_data_goes_on(datasets, tmp_path):
    weights = run(small_federation(), tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    known = json.loads(file.read_text())
    del known["identity"]["data"]
    file.write_text(json.dumps(known))
    assert alike(weights, run(small_federation(), tmp_path / "run"))


def test_cases_that_are_in_neither_part_of_a_fold_are_told_and_the_run_goes_on(datasets, tmp_path):
    hold_out_cases()
    split(SmallDataset("Dataset502_b"), ["case0"], ["case2"])
    run_federation(small_federation(1, run={"fold": 0}), tmp_path / "run", CONSOLE)
    (told,) = (line for line in (tmp_path / "run" / "federation.log").read_text().splitlines() if "WARNING" in line)
    file = SmallDataset("Dataset502_b").preprocessed / "splits_final.json"
    assert f"site b: 2 of 4 preprocessed cases are in neither part of fold 0 of {file}" in told
    assert "case1, case3" in told


def test_without_a_folder_for_models_nothing_is_trained_and_the_variable_is_named(datasets, tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_results")
    for start in (
        lambda: run_federation(small_federation(), tmp_path / "run", CONSOLE),
        lambda: default_run_folder(small_federation()),
    ):
        with pytest.raises(ConfigurationError, match=r"nnUNet_results is not set; set it to the folder for the models"):
            start()
    assert not (tmp_path / "run").exists()


def test_other_devices_and_more_workers_may_go_on_with_a_run(datasets, tmp_path):
    weights = run(small_federation(), tmp_path / "run")
    assert alike(weights, run(small_federation(run={"workers": 2}), tmp_path / "run"))


@pytest.mark.parametrize("party", ["coordinator", "sites/a"])
def test_a_damaged_state_is_named_and_without_it_the_run_goes_on_from_the_state_before(datasets, tmp_path, party):
    weights = run(small_federation(rounds=3), tmp_path / "run")
    newest = max((tmp_path / "run" / party).glob("round_*.state"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 255
    newest.write_bytes(bytes(content))
    with pytest.raises(StateFileError, match=f"{newest.name} is damaged"):
        run(small_federation(rounds=3), tmp_path / "run")
    newest.unlink()
    if party == "coordinator":
        assert alike(weights, run(small_federation(rounds=3), tmp_path / "run"))
    else:
        run(small_federation(rounds=3), tmp_path / "run")


def test_sites_that_were_not_planned_are_listed_all_at_once(datasets, tmp_path):
    for dataset in ("Dataset500_lead", "Dataset502_b"):
        (datasets.preprocessed / dataset / "FedMEPDTinyPlans.json").unlink()
    with pytest.raises(ConfigurationError, match=r"(?s)site 'lead'.*site 'b'.*Run `fedmepd plan`"):
        run(small_federation(), tmp_path / "run")


def test_settings_from_the_environment_are_refused_and_where_they_belong_is_told(datasets, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMEPD_INITIAL_LR", "0.5")
    with pytest.raises(ConfigurationError, match=r"FEDMEPD_INITIAL_LR: .*write the settings under \[training\]"):
        run(small_federation(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_journal_has_one_line_per_site_and_round_and_the_status_says_finished(datasets, tmp_path):
    run(small_federation(), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert [(line["round"], line["site"]) for line in folder.journal()] == [
        *[(1, "a"), (1, "b"), (1, "lead")],
        *[(2, "a"), (2, "b"), (2, "lead")],
    ]
    assert folder.status()["state"] == "finished"
    assert "round 2/2  lead: loss" in (tmp_path / "run" / "federation.log").read_text()


def test_differences_name_the_place_of_every_change():
    old = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert flat_differences(old, {"a": {"b": 1, "c": [1, 5]}, "e": 4}) == [
        "a.c[1]: 2 -> 5",
        "d: 3 -> None",
        "e: None -> 4",
    ]


def test_final_weights_are_those_of_the_last_turn(datasets, tmp_path):
    federation = small_federation()
    weights = run(federation, tmp_path / "run")
    tensors, _ = RunFolder(tmp_path / "run").site("b").load(2)
    name = "decoder.merges.0.0.conv.weight"
    assert torch.equal(tensors[f"training/network/{name}"], weights["b"][name])
    assert alike(weights, final_weights(federation))
