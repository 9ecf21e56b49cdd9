"""`fedmepd doctor`, run as a program in environments that are sound or broken in one way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from nnunet_fedmepd.commands import doctor

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


class Report(NamedTuple):
    """What doctor said: its exit code, and by subject the status, the finding and the remedy."""

    exit_code: int
    findings: dict[str, tuple[str, str, str]]

    def status(self, subject: str) -> str:
        return self.findings[subject][0]


LINE = re.compile(r"^(OK|WARN|FAIL) +(.+?): (.*)(?:\n +→ (.*))?$", re.MULTILINE)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables with which doctor finds nothing to repair."""
    variables = {name: str(tmp_path_factory.mktemp(name)) for name in VARIABLES}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("nnUNet_", "FEDMEPD_"))}
    return {**inherited, **variables}


def run_doctor(variables: dict[str, str], *command: str) -> Report:
    """Run doctor, by default in the way that works without installation."""
    words = command or ("-m", "nnunet_fedmepd", "doctor")
    run = subprocess.run([sys.executable, *words], cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert not run.stderr
    return Report(
        run.returncode, {subject: (s, found, remedy) for s, subject, found, remedy in LINE.findall(run.stdout)}
    )


def test_in_a_sound_environment_nothing_is_to_repair(healthy: dict[str, str]) -> None:
    report = run_doctor(healthy)
    assert report.exit_code == 0
    assert {status for status, _, _ in report.findings.values()} <= {"OK", "WARN"}
    expected = {"Python", "nnunet-fedmepd", "nnunetv2", "torch", "torchvision", "nnU-Net plug-in", "nnUNet_extTrainer"}
    assert expected | set(VARIABLES) | {"nnU-Net plug-in in spawned workers", "free memory"} <= set(report.findings)


def test_checking_a_folder_leaves_nothing_in_it(healthy: dict[str, str]) -> None:
    run_doctor(healthy)
    assert [list(Path(healthy[name]).iterdir()) for name in VARIABLES] == [[], [], []]


def test_path_variables_that_are_not_set_fail_each_with_a_remedy(healthy: dict[str, str]) -> None:
    report = run_doctor({name: value for name, value in healthy.items() if name not in VARIABLES})
    expected = {name: ("FAIL", "not set", f"export {name}=/a/folder/with/room") for name in VARIABLES}
    assert report.exit_code == 1
    assert {name: report.findings[name] for name in VARIABLES} == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc, which not even root can write to")
def test_a_folder_that_is_none_or_is_missing_or_cannot_be_written_fails(
    healthy: dict[str, str], tmp_path: Path
) -> None:
    file, missing = tmp_path / "file", tmp_path / "missing"
    file.touch()
    folders = {"nnUNet_raw": str(file), "nnUNet_preprocessed": "/proc", "nnUNet_results": str(missing)}
    report = run_doctor({**healthy, **folders})
    assert report.exit_code == 1
    assert report.findings["nnUNet_raw"][:2] == ("FAIL", f"{file} is not a folder")
    assert report.status("nnUNet_preprocessed") == "FAIL"
    assert "/proc is not writable" in report.findings["nnUNet_preprocessed"][1]
    assert report.findings["nnUNet_results"] == ("FAIL", f"{missing} does not exist", f"mkdir -p {missing}")


def test_a_switched_off_hook_fails_here_and_in_spawned_workers(healthy: dict[str, str]) -> None:
    report = run_doctor({**healthy, "FEDMEPD_NO_HOOK": "1"}, "-m", "nnunet_fedmepd.cli", "doctor")
    switched_off = ("FAIL", "switched off by FEDMEPD_NO_HOOK", "unset FEDMEPD_NO_HOOK")
    assert report.exit_code == 1
    assert report.findings["nnU-Net plug-in"] == switched_off
    assert report.findings["nnU-Net plug-in in spawned workers"] == switched_off


def test_an_nnunet_out_of_range_fails_with_the_version_found(healthy: dict[str, str], tmp_path: Path) -> None:
    metadata = tmp_path / "older" / "nnunetv2-2.7.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: nnunetv2\nVersion: 2.7.0\n")
    report = run_doctor({**healthy, "PYTHONPATH": str(metadata.parents[1])})
    status, found, remedy = report.findings["nnunetv2"]
    assert (report.exit_code, status) == (1, "FAIL")
    assert found.startswith("2.7.0, expected ")
    assert remedy.startswith('pip install "nnunetv2')


def test_a_torchvision_that_does_not_fit_torch_fails(healthy: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    report = run_doctor({**healthy, "PYTHONPATH": str(tmp_path)})
    status, found, _ = report.findings["torchvision"]
    assert (report.exit_code, status) == (1, "FAIL")
    assert found.endswith("RuntimeError: operator torchvision::nms does not exist")


def test_memory_that_only_caches_files_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"SC_AVPHYS_PAGES": 0}  # as where everything that no program uses caches files
    real = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: pages[name] if name in pages else real(name))
    assert doctor.check_memory().status is not doctor.Status.FAIL


def test_a_missing_nnunet_is_reported_not_raised(healthy: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "nnunetv2.py").write_text("raise ImportError('No module named nnunetv2')\n")
    report = run_doctor({**healthy, "PYTHONPATH": str(tmp_path)}, "-m", "nnunet_fedmepd.cli", "doctor")
    assert report.findings["nnU-Net plug-in"][:2] == ("FAIL", "nnU-Net cannot be imported: No module named nnunetv2")


def test_an_external_trainer_folder_that_is_missing_is_a_warning(healthy: dict[str, str], tmp_path: Path) -> None:
    report = run_doctor({**healthy, "nnUNet_extTrainer": str(tmp_path / "missing")})
    assert (report.exit_code, report.status("nnUNet_extTrainer")) == (0, "WARN")


def test_an_external_trainer_folder_that_exists_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    assert doctor.check_external_trainers().status is doctor.Status.OK


def test_only_what_is_not_in_order_has_a_remedy(healthy: dict[str, str]) -> None:
    findings = run_doctor({**healthy, "nnUNet_raw": ""}).findings.values()
    assert all(bool(remedy) == (status != "OK") for status, _, remedy in findings)


@pytest.mark.parametrize(
    ("amount", "status"), [(20.0, doctor.Status.OK), (19.9, doctor.Status.WARN), (0.9, doctor.Status.FAIL)]
)
def test_low_disk_is_a_warning_and_no_disk_a_failure(amount: float, status: doctor.Status) -> None:
    assert doctor._judge_amount("free disk", amount, low=20, least=1, remedy="free some").status is status


def test_the_versions_doctor_expects_are_those_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    required = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    assert {name: required[name] for name in doctor.SUPPORTED_VERSIONS} == doctor.SUPPORTED_VERSIONS
    assert SpecifierSet(project["requires-python"]) == doctor.SUPPORTED_PYTHON
