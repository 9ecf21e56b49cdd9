"""A coordinator and two hospitals, each started by the commands of the README, to the end of the federation."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from nnunet_fedmepd.deployment.init import Place, make_kits
from nnunet_fedmepd.deployment.processes import id_file, installed_program
from tests.deployment import made_kits
from tests.deployment.loopback import wait_until
from tests.deployment.security_table import SecurityTable
from tests.nnunet_plugin.small_dataset import BRATS, PLAIN_LABELS, write_case, write_image

pytestmark = pytest.mark.deployment

TABLES = """
[planning]
planner = "FedMEPDTinyPlanner"
gpu_memory_gb = 0.02
[training]
num_iterations_per_epoch = 2
num_val_iterations_per_epoch = 1
plot_every = 1000
final_validation = false
"""
CHANNELS = {"university": BRATS, "county": ("T2", "FLAIR")}
DATASETS = {"university": "Dataset500_Neuro", "county": "Dataset042_Own"}
PATIENTS = {"university": ("miller1961", "moreau1950"), "county": ("schmidt1948", "rossi1955", "novak1971")}
N_PROCESSES = 3 + 4 * len(CHANNELS)
SECONDS = 1200  # that a busy machine has


@dataclass(frozen=True)
class Deployment:
    """What is there when the federation has ended."""

    kits: Path
    hospitals: Path
    printed: Mapping[str, str]
    exit_codes: Mapping[str, int | None]
    status: str
    process_ids: Sequence[int]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    folder = tmp_path_factory.mktemp("three_terminals")
    (folder / "glioma.toml").write_text(made_kits.FEDERATION + TABLES)
    place = Place("127.0.0.1", made_kits.free_port(), made_kits.free_port(), made_kits.free_port())
    kits, hospitals = folder / "kits", folder / "hospitals"
    make_kits(folder / "glioma.toml", kits, place)
    for site in CHANNELS:
        _write_hospital(hospitals / site, site)
        own = {"device": "cpu"} | ({"dataset": DATASETS[site]} if site == "county" else {})
        made_kits.write_site_toml(kits / "sites" / site, hospitals / site, **own)
    commands = {
        "coordinator": ["deploy", "up", str(kits / "coordinator")],
        **{site: ["site", "up", str(kits / "sites" / site)] for site in CHANNELS},
    }
    with _terminals(commands, folder) as terminals:
        folders = [kits / "coordinator", *(kits / "sites" / site for site in CHANNELS)]
        assert wait_until(lambda: len(_process_ids(folders)) == N_PROCESSES or _ended(terminals), SECONDS)
        ids = _process_ids(folders)
        wait_until(lambda: all(terminal.poll() is not None for terminal in terminals.values()), SECONDS)
        codes = {name: terminal.poll() for name, terminal in terminals.items()}
    printed = {name: (folder / f"{name}.txt").read_text() for name in commands}
    status = _fedmepd("deploy", "status", str(kits / "coordinator"))
    return Deployment(kits, hospitals, printed, codes, status, ids)


def _write_hospital(folder: Path, site: str) -> None:
    for name in ("nnunet_raw", "nnunet_preprocessed", "nnunet_results"):
        (folder / name).mkdir(parents=True)
    dataset = folder / "nnunet_raw" / DATASETS[site]
    for name in ("imagesTr", "labelsTr"):
        (dataset / name).mkdir(parents=True)
    for patient in PATIENTS[site]:
        labels = write_case(dataset / "imagesTr", patient, CHANNELS[site])
        write_image(dataset / "labelsTr" / f"{patient}.nii.gz", labels)
    channels = {str(i): channel for i, channel in enumerate(CHANNELS[site])}
    description = {"channel_names": channels, "labels": PLAIN_LABELS, "file_ending": ".nii.gz"}
    (dataset / "dataset.json").write_text(json.dumps({**description, "numTraining": len(PATIENTS[site])}))


@contextlib.contextmanager
def _terminals(commands: Mapping[str, Sequence[str]], folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start each command as in a terminal of its own, and end what is left of them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
    terminals = {}
    try:
        for name, command in commands.items():
            with (folder / f"{name}.txt").open("wb") as output:
                terminals[name] = subprocess.Popen(
                    [installed_program("fedmepd"), *command],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**environment, "nnUNet_n_proc_DA": "1"},  # a process that draws patches, as on a GPU
                )
        yield terminals
    finally:
        for terminal in terminals.values():
            terminal.terminate()
        for terminal in terminals.values():
            terminal.wait(120)


def _process_ids(folders: Sequence[Path]) -> list[int]:
    return [i for f in folders if id_file(f).is_file() for i in json.loads(id_file(f).read_bytes()).values()]


def _ended(terminals: Mapping[str, subprocess.Popen[bytes]]) -> bool:
    return any(terminal.poll() is not None for terminal in terminals.values())


def _fedmepd(*words: str) -> str:
    done = subprocess.run([installed_program("fedmepd"), *words], capture_output=True, text=True, check=True)
    return done.stdout


def test_all_three_end_by_themselves_when_the_federation_does(ended: Deployment) -> None:
    assert dict.fromkeys(ended.exit_codes, 0) == ended.exit_codes, "\n".join(ended.printed.values())[-6000:]
    assert "The federation has ended" in ended.printed["coordinator"]


def test_every_site_has_its_model(ended: Deployment) -> None:
    for site in CHANNELS:
        models = list((ended.hospitals / site / "nnunet_results").rglob("checkpoint_final.pth"))
        assert [model.parents[2].name for model in models] == [DATASETS[site]]


def test_status_shows_rounds_sites_and_traffic(ended: Deployment) -> None:
    assert "glioma: round 2 of 2, finished" in ended.status
    for site in CHANNELS:
        seen = re.search(rf"│ {site} +│ +(\d+ s|\d+ min) ago │ +([\d.]+) │ +([\d.]+) │ +0 │", ended.status)
        assert seen, ended.status
        assert float(seen[2]) > 0.1
        assert float(seen[3]) > 0.1


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_process_is_left(ended: Deployment) -> None:
    assert len(ended.process_ids) == N_PROCESSES
    assert not [process for process in ended.process_ids if Path(f"/proc/{process}").exists()]


def test_nothing_of_a_site_is_written_down_elsewhere(ended: Deployment, request: pytest.FixtureRequest) -> None:
    for site in CHANNELS:
        secrets = [*PATIENTS[site], str(ended.hospitals / site), str(ended.kits / "sites" / site)]
        if site == "county":
            secrets.append(DATASETS[site])  # only this site knows its own name for it
        others = [ended.kits / "coordinator", *(ended.kits / "sites" / other for other in CHANNELS if other != site)]
        for other in others:
            assert _where(secrets, other) == []
        own = [ended.hospitals / site, ended.kits / "sites" / site]
        assert {secret for folder in own for secret, _ in _where(secrets, folder)} == set(secrets)
    stopped_by = {"replies are typed, errors tell their kind only": "found at that site only"}
    SecurityTable.of(request.config).add("case names and paths in others' logs and files", stopped_by, "(not tried)")


def test_case_names_are_in_no_log_and_in_no_terminal(ended: Deployment) -> None:
    patients = [patient for names in PATIENTS.values() for patient in names]
    for logs in ended.kits.rglob("logs"):
        assert _where(patients, logs) == []
    for printed in ended.printed.values():
        assert not [patient for patient in patients if patient in printed]


def test_what_came_to_be_in_the_kits_is_their_owners_alone(ended: Deployment) -> None:
    assert {stat.S_IMODE(key.stat().st_mode) for key in ended.kits.rglob("*.key")} == {0o600}
    kits = [ended.kits / "coordinator", *(ended.kits / "sites" / site for site in CHANNELS)]
    assert {stat.S_IMODE(kit.stat().st_mode) for kit in kits} == {0o700}


def _where(secrets: Sequence[str], folder: Path) -> list[tuple[str, Path]]:
    """Return which of the secrets are in which files of a folder, in their names or their contents."""
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = str(file.relative_to(folder)).encode() + b"\n" + file.read_bytes()
        found += [(secret, file) for secret in secrets if secret.encode() in content]
    return found
