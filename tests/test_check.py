"""`fedmepd check`: tells what a federation file says, whether the data fit it, and what would leave each site."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from nnunet_fedmepd.cli import main
from tests.nnunet_plugin.small_dataset import SHAPE, make_dataset, write_image

SITES = {"lead": ("T1", "T1ce", "T2", "FLAIR"), "a": ("T1ce",), "b": ("T2", "FLAIR")}
UNSET = "nnUNet_raw and nnUNet_preprocessed not set: the sites' datasets were not checked."


def write_file(folder: Path, head: str = "rounds = 10", tables: str = "", **stated: str) -> str:
    """Write a federation of `SITES` and return its path; `stated` gives sites further lines."""
    sites = [
        f'[[site]]\nname = "{name}"\ndataset = {500 + i}\nlead = {str(name == "lead").lower()}\n{stated.get(name, "")}'
        for i, name in enumerate(SITES)
    ]
    modalities = 'name = "hospitals"\nmodalities = ["T1", "T1ce", "T2", "FLAIR"]'
    planning = '[planning]\nplanner = "FedMEPDTinyPlanner"'
    (folder / "f.toml").write_text("\n".join([modalities, head, *sites, planning, tables]))
    return str(folder / "f.toml")


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command and return its exit code, what it printed, and its error."""
    capsys.readouterr()
    code = main(["check", *arguments])
    return code, *capsys.readouterr()


@pytest.fixture
def no_nnunet_folders(monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def raw_datasets(nnunet_paths):
    return {name: make_dataset(f"Dataset{500 + i}_{name}", SITES[name], n_cases=1) for i, name in enumerate(SITES)}


def change_description(dataset, **changes):
    (dataset.raw / "dataset.json").write_text(json.dumps({**dataset.description, **changes}))


@pytest.mark.usefixtures("no_nnunet_folders")
def test_a_recipe_is_shown_by_its_name_with_sites_rounds_and_switches(capsys):
    code, printed, _ = checked(capsys, "demo")
    assert code == 0
    assert re.search(r"2013 +│ 500 +│ T1\+T1ce\+T2\+FLAIR +│ lead", printed)
    assert re.search(r"TCIA01 +│ 502 +│ T2\+FLAIR +│ site", printed)
    assert re.search(r"\d+ rounds of 1 local epoch; seed 12345\n", printed)
    assert "planned by FedMEPDTinyPlanner for 0.15 GB, configuration 3d_fullres\n" in printed
    assert "decoder = partial, lead_role = lead, lead_share = 0.3" in printed
    assert "personalization: patience = 2, " in printed
    assert "training: num_iterations_per_epoch = " in printed
    assert UNSET in printed


@pytest.mark.usefixtures("no_nnunet_folders")
def test_what_the_file_leaves_to_data_or_plans_is_said_to_be_so(capsys, tmp_path):
    file = write_file(tmp_path, "rounds = 10\nepochs_per_round = 2", a="absent_rounds = [3, 4]")
    _, printed, _ = checked(capsys, file)
    assert re.search(r"a +│ 501 +│ as in dataset.json +│ site +│ 3, 4 ", printed)
    assert "10 rounds of 2 local epochs" in printed
    assert "training: as planned" in printed


@pytest.mark.usefixtures("no_nnunet_folders")
@pytest.mark.parametrize(("role", "shown"), [("lead", "lead"), ("site", "site"), ("none", "does not train")])
def test_the_table_says_what_a_lead_does_under_the_files_method(capsys, tmp_path, role, shown):
    anchors = str(role == "lead").lower()
    file = write_file(tmp_path, tables=f'[method]\nlead_role = "{role}"\nanchors = {anchors}')
    assert re.search(rf"lead +│ 500 +│ as in dataset.json +│ {shown} +│", checked(capsys, file)[1])


@pytest.mark.usefixtures("no_nnunet_folders")
def test_mistakes_in_the_file_end_with_exit_code_2_and_are_all_listed(capsys, tmp_path):
    file = write_file(tmp_path, "rounds = 0\nepoch_per_round = 1")
    code, printed, error = checked(capsys, file)
    assert (code, printed) == (2, "")
    assert error == (
        f"fedmepd: {file} has 2 mistakes:\n"
        "  epoch_per_round: unknown key; did you mean 'epochs_per_round'?\n"
        "  rounds: expected a number greater than or equal to 1, found 0\n"
    )


@pytest.mark.usefixtures("raw_datasets")
def test_datasets_that_fit_the_file_are_confirmed(capsys, tmp_path):
    code, printed, _ = checked(capsys, write_file(tmp_path, b='modalities = ["t2w", "FLAIR"]'))
    assert code == 0
    assert "The datasets of all 3 sites are there and fit the file." in printed


def test_datasets_that_are_not_there_are_all_named(capsys, tmp_path, nnunet_paths):
    make_dataset("Dataset501_a", SITES["a"], n_cases=1)
    code, _, error = checked(capsys, write_file(tmp_path))
    assert code == 2
    assert "site 'lead': Could not find a dataset with the ID 500" in error
    assert "site 'b': Could not find a dataset with the ID 502" in error
    assert "site 'a'" not in error


def test_channels_and_labels_that_do_not_fit_are_all_listed(capsys, tmp_path, raw_datasets):
    change_description(raw_datasets["b"], labels={"background": 0, "core": 2, "edema": 1, "enhancing": 3})
    code, _, error = checked(capsys, write_file(tmp_path, a='modalities = ["T1"]'))
    assert code == 2
    assert "site 'a': the federation file states the modalities ['T1'], but the channels of Dataset501_a" in error
    assert "site 'b' has other labels than site 'lead'" in error


def test_channels_in_another_order_than_stated_are_refused(capsys, tmp_path, raw_datasets):
    code, _, error = checked(capsys, write_file(tmp_path, b='modalities = ["FLAIR", "T2"]'))
    assert code == 2
    assert "states the modalities ['FLAIR', 'T2'], but the channels of Dataset502_b are ['T2', 'FLAIR']" in error


@pytest.mark.parametrize("has_data", [False, True], ids=["without data", "with data"])
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('planner = "FedMEPDTinyPlaner"', "did you mean 'FedMEPDTinyPlanner'?"),
        (
            'configuration = "3d_fulres"',
            "plans no configuration '3d_fulres'; expected one of 2d, 3d_fullres, 3d_lowres",
        ),
    ],
)
def test_a_planner_or_configuration_that_there_is_not_is_told(capsys, tmp_path, request, has_data, table, message):
    request.getfixturevalue("raw_datasets" if has_data else "no_nnunet_folders")
    file = write_file(tmp_path)
    planning = Path(file).read_text().split("[planning]")[0] + f"[planning]\n{table}"
    Path(file).write_text(planning)
    code, _, error = checked(capsys, file)
    assert code == 2
    assert message in error


def test_labels_label_maps_and_files_of_all_sites_are_checked_at_once(capsys, tmp_path, raw_datasets):
    change_description(raw_datasets["lead"], labels={"0": "background", "1": "core"})
    label_map = raw_datasets["a"].raw / "labelsTr" / "case0.nii.gz"
    write_image(label_map, np.full(SHAPE, 4))
    image = raw_datasets["b"].raw / "imagesTr" / "case0_0001.nii.gz"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    file = write_file(tmp_path, tables='configuration = "3d_fulres"')  # of [planning], the last table
    code, _, error = checked(capsys, file)
    assert code == 2
    assert "site 'lead': dataset.json does not give every label its number" in error
    assert "site 'a': A label map holds values that dataset.json does not declare\n    case: case0\n" in error
    assert f"file: {label_map}\n    expected: only 0, 1, 2, 3\n    found: 4\n" in error
    assert f"site 'b': A file of a training case is cut off\n    case: case0\n    file: {image}\n" in error
    assert "plans no configuration '3d_fulres'" in error


def test_checking_writes_nothing(capsys, tmp_path, raw_datasets, nnunet_paths):
    checked(capsys, write_file(tmp_path))
    assert list(nnunet_paths.preprocessed.iterdir()) == []


@pytest.mark.usefixtures("no_nnunet_folders")
def test_what_leaves_is_declared_phase_by_phase_and_what_never_does(capsys, tmp_path):
    code, printed, _ = checked(capsys, write_file(tmp_path), "--what-leaves")
    assert code == 0
    phases = ["In planning, once:", "In every round, from a site:", "In every round, from a lead:", "Never:"]
    assert [line for phase in phases for line in printed.splitlines() if line.startswith(phase)] == [
        line for line in printed.splitlines() if line.startswith(tuple(phases))
    ]
    planning, site, lead, never = (printed.split(phase)[1] for phase in phases)
    assert "rounded to 1/10000 mm" in planning.split(phases[1])[0]
    assert "histogram of 4096 bins" in planning.split(phases[1])[0]
    assert "the encoders of its modalities" in site.split(phases[2])[0]
    assert "anchors" not in site.split(phases[2])[0]
    assert "anchors" in lead.split(phases[3])[0]
    for what in ("images", "labels", "personal filters", "optimizer state", "calibration"):
        assert what in never


@pytest.mark.usefixtures("no_nnunet_folders")
@pytest.mark.parametrize(
    ("method", "absent"),
    [
        ('variant = "local"', "In every round"),
        ('variant = "fedmema"', "filters of the fusion decoder that"),
        ("anchors = false", "its anchors"),
        ('variant = "fedavg"', "from a lead"),
    ],
)
def test_what_a_method_does_not_exchange_is_not_declared(capsys, tmp_path, method, absent):
    _, everything, _ = checked(capsys, write_file(tmp_path), "--what-leaves")
    _, printed, _ = checked(capsys, write_file(tmp_path, tables=f"[method]\n{method}"), "--what-leaves")
    assert absent in everything
    assert absent not in printed


@pytest.mark.usefixtures("raw_datasets")
def test_without_plans_it_says_what_is_missing_to_list_the_arrays(capsys, tmp_path):
    code, printed, _ = checked(capsys, write_file(tmp_path), "--what-leaves")
    assert code == 0
    assert "The arrays that leave a site are listed once there are plans." in printed
    assert "Run `fedmepd plan` with this file first." in printed


@pytest.mark.usefixtures("no_nnunet_folders")
def test_the_codec_is_declared(capsys, tmp_path):
    _, by_default, _ = checked(capsys, write_file(tmp_path), "--what-leaves")
    _, without, _ = checked(capsys, write_file(tmp_path, tables='[method]\ncodec = "none"'), "--what-leaves")
    assert "by the codec bf16" in by_default
    assert "by the codec" not in without
