"""The commands `run`, `status` and `check` as a user meets them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_fedmepd.cli import main
from nnunet_fedmepd.commands.status import headline
from tests.runtime.small_federation import checkpoint, results_folder

FILE = """
name = "small"
modalities = ["T1", "T1ce", "T2", "FLAIR"]
rounds = {rounds}
[[site]]
name = "lead"
dataset = 500
lead = true
[[site]]
name = "a"
dataset = 501
[[site]]
name = "b"
dataset = 502
[planning]
planner = "FedMEPDTinyPlanner"
[method.personalization]
patience = 1
warm_up_rounds = 0
[training]
num_iterations_per_epoch = 2
num_val_iterations_per_epoch = 1
plot_every = 1000
final_validation = false
[run]
devices = ["cpu"]
"""


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """Undo that a shell lets what it starts in the background ignore Ctrl-C: children inherit it from the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def file(datasets, tmp_path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(FILE.format(rounds=2))
    return path


def command(*words: object, **changes) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "nnunet_fedmepd.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | changes,
    )


def test_run_prints_a_line_per_site_and_round_and_status_shows_the_end(file, tmp_path, capsys):
    assert main(["run", str(file), "--run", str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    turns = [line for line in lines if line.startswith("round ")]
    assert [line.split(":")[0] for line in turns] == [
        *("round 1/2  a", "round 1/2  b", "round 1/2  lead"),
        *("round 2/2  a", "round 2/2  b", "round 2/2  lead"),
    ]
    assert "loss" in turns[0]
    assert "MB sent" in turns[0]
    assert any(line.startswith("nnUNetv2_predict") and "-p FedMEPDTinyPlans" in line for line in lines)
    assert main(["status", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "small: round 2 of 2, finished" in shown
    assert "│ lead │" in shown


def test_without_a_folder_the_run_lies_beside_nnunets_results(file, datasets):
    assert main(["run", str(file), "--variant", "local"]) == 0
    assert (datasets.results / "federations" / "small_local" / "status.json").is_file()


def test_a_recipe_is_tried_with_fewer_rounds_and_its_learning_rate_falls_within_them(file, datasets):
    assert main(["run", str(file), "--rounds", "1"]) == 0
    assert (datasets.results / "federations" / "small_1_rounds" / "status.json").is_file()
    assert checkpoint("a", 501)["init_args"]["plans"]["fedmepd"]["training"]["num_epochs"] == 1


def test_status_works_while_the_run_goes_on_and_ctrl_c_ends_it_cleanly(datasets, tmp_path, capsys):
    file, folder = tmp_path / "long.toml", tmp_path / "run"
    file.write_text(FILE.format(rounds=500))
    process = command("run", file, "--run", folder)
    journal = folder / "rounds.jsonl"
    while not (journal.is_file() and journal.read_text().count("\n") >= 4):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    assert main(["status", str(folder)]) == 0
    assert "of 500, training" in capsys.readouterr().out
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output
    assert output.endswith("fedmepd: interrupted\n")
    assert main(["status", str(folder)]) == 0
    assert "stopped" in capsys.readouterr().out


def test_ctrl_c_ends_a_run_with_several_workers_and_its_processes(datasets, tmp_path):
    file, folder = tmp_path / "long.toml", tmp_path / "run"
    file.write_text(FILE.format(rounds=500))
    process = command("run", file, "--run", folder, "--workers", 2)
    journal = folder / "rounds.jsonl"
    while not (journal.is_file() and journal.read_text().count("\n") >= 4):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)  # ends only when every child has let go of the pipe
    assert process.returncode == 130
    assert "Traceback" not in output


def test_check_lists_sites_and_every_array_that_would_leave_but_nothing_of_a_case(file, capsys):
    assert main(["check", str(file), "--what-leaves"]) == 0
    shown = capsys.readouterr().out
    assert "│ lead │ 500" in shown
    assert "The datasets of all 3 sites are there and fit the file." in shown
    assert "encoder/T1ce/encoders.T1ce.stages.0.0.conv.weight" in shown
    assert "importance/decoder.merges.0.0" in shown
    assert "case0" not in shown
    for part in ("auxiliary.", "calibrations.", "optimizer/"):
        assert part not in shown


def test_check_tells_every_site_whose_data_do_not_fit(file, datasets, capsys):
    for dataset in ("Dataset501_a", "Dataset502_b"):
        (datasets.raw / dataset).rename(datasets.raw / dataset.replace("Dataset5", "Dataset7"))
    assert main(["check", str(file)]) == 2
    told = capsys.readouterr().err
    assert "site 'a'" in told
    assert "site 'b'" in told


def test_status_of_a_folder_that_is_no_run_says_so(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 2
    assert "holds no federated run" in capsys.readouterr().err


def test_status_of_a_run_whose_identity_is_damaged_or_lost_names_the_file(file, tmp_path, capsys):
    assert main(["run", str(file), "--run", str(tmp_path / "run"), "--rounds", "1"]) == 0
    known = tmp_path / "run" / "run.json"
    for damage in (lambda: known.write_text(known.read_text()[:50]), lambda: known.write_text("{}"), known.unlink):
        damage()
        capsys.readouterr()
        assert main(["status", str(tmp_path / "run")]) == 2
        told = capsys.readouterr()
        assert "round 1 of 1, finished" in told.out
        assert f"fedmepd: {known} " in told.err
        assert "Restore it from a backup" in told.err


def test_the_time_left_follows_from_the_rounds_so_far():
    status = {"name": "x", "round": 3, "rounds": 10, "state": "running", "process": os.getpid(), "training": ["a"]}
    journal = [{"round": r, "site": "a", "time": 100.0 * r} for r in (1, 2)]
    assert headline(status, journal, 0.0) == "x: round 3 of 10, training a, about 12 min left"


def test_after_the_last_round_the_status_names_the_sites_whose_models_are_still_written():
    status = {"name": "x", "round": 9, "rounds": 9, "state": "ending", "process": os.getpid(), "training": ["a", "b"]}
    journal = [{"round": r, "site": "a", "time": 100.0 * r} for r in (1, 2)]
    assert headline(status, journal, 0.0) == "x: round 9 of 9, all done; writing the models of a, b"


def test_a_site_can_predict_at_once_with_the_stock_command(file, datasets, tmp_path):
    assert main(["run", str(file), "--run", str(tmp_path / "run")]) == 0
    out = tmp_path / "predictions"
    script = "import sys; from nnunetv2.inference.predict_from_raw_data import predict_entry_point as e; sys.exit(e())"
    register = "from nnunet_fedmepd.nnunet_plugin.registration import register; register(); "
    words = ["-i", datasets.raw / "Dataset501_a" / "imagesTr", "-o", out, "-d", "501", "-f", "all"]
    words += ["-tr", "FedMEPDTrainer", "-p", "FedMEPDTinyPlans", "-c", "3d_fullres", "-device", "cpu"]
    words += ["-npp", "0", "-nps", "0", "--disable_tta"]
    done = subprocess.run(
        [sys.executable, "-c", register + script, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("*.nii.gz"))) == 3
    assert results_folder("a", 501).is_dir()
