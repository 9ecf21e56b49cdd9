"""The package in virtual environments of its own: nnU-Net finds our classes, and is left as it was afterwards."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nnunetv2
import pytest

from tests.installation.environments import ROOT, Environment, build_wheel, files_below

pytestmark = [
    pytest.mark.installation,
    pytest.mark.skipif(os.name == "nt", reason="these environments are made with symbolic links"),
]

PROBE = Path(__file__).with_name("probe.py")
IS_REGISTERED = "from nnunet_fedmepd.nnunet_plugin.registration import is_registered; print(is_registered())"
LOADED_AT_START = "import sys; print(sorted({'torch', 'nnunetv2', 'nnunet_fedmepd'} & set(sys.modules)))"
WHERE_IT_IS = "import nnunet_fedmepd as package; print(package.__file__)"

STOCK = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer"
FOUND = {
    "trainer": "nnunet_fedmepd.nnunet_plugin.trainer.FedMEPDTrainer",
    "planner": "nnunet_fedmepd.nnunet_plugin.planner.FedMEPDPlanner",
    "trainer in worker": "nnunet_fedmepd.nnunet_plugin.trainer.FedMEPDTrainer",
    "same class": True,
    "stock trainer": STOCK,
}
NOT_FOUND = {"trainer": None, "planner": None, "trainer in worker": None, "same class": True, "stock trainer": STOCK}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built once."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment without this package."""
    return Environment.create(tmp_path / "environment")


@pytest.fixture
def environment_without_nnunet(tmp_path: Path) -> Environment:
    """An environment without nnU-Net, either."""
    return Environment.create(tmp_path / "environment", omitted=("nnunetv2",))


@pytest.fixture
def checkout(tmp_path: Path, environment_without_nnunet: Environment) -> Path:
    """A checkout of nnU-Net, installed editable in that environment with the build back end nnU-Net uses."""
    folder = tmp_path / "nnUNet"
    shutil.copytree(nnunetv2.__path__[0], folder / "nnunetv2", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "nnunetv2"\nversion = "{version("nnunetv2")}"\n'
        '[tool.setuptools.packages.find]\ninclude = ["nnunetv2*"]\n'
    )
    environment_without_nnunet.install("--editable", folder)
    return folder


def look_up(environment: Environment, *arguments: str | Path, **variables: str) -> tuple[dict[str, Any], str]:
    """Return what the probe found, and the folder of the nnU-Net it found it with."""
    found = json.loads(environment.run(*(arguments or [PROBE]), **variables))
    return found, found.pop("nnunetv2")


def test_after_installing_the_wheel_nnunet_finds_our_classes_unless_opted_out(
    environment: Environment, wheel: Path
) -> None:
    environment.install(wheel)
    assert str(environment.site_packages) in environment.run("-c", WHERE_IT_IS)
    assert environment.run("-c", LOADED_AT_START) == "[]"
    assert look_up(environment)[0] == FOUND
    assert environment.run("-c", IS_REGISTERED) == "True"
    assert environment.run("-c", IS_REGISTERED, FEDMEPD_NO_HOOK="1") == "False"


def test_after_an_editable_installation_nnunet_finds_the_classes_of_the_source_tree(environment: Environment) -> None:
    environment.install("--editable", ROOT)
    assert Path(environment.run("-c", WHERE_IT_IS)) == ROOT / "nnunet_fedmepd" / "__init__.py"
    assert look_up(environment)[0] == FOUND


def test_an_editable_nnunet_checkout_finds_our_classes_and_outlives_them(
    environment_without_nnunet: Environment, checkout: Path, wheel: Path
) -> None:
    environment = environment_without_nnunet
    files_before, checkout_before = environment.installed_files(), files_below(checkout)
    environment.install(wheel)
    assert look_up(environment) == (FOUND, str(checkout / "nnunetv2"))
    environment.uninstall("nnunet-fedmepd")
    assert environment.installed_files() == files_before
    assert files_below(checkout) == checkout_before
    assert look_up(environment) == (NOT_FOUND, str(checkout / "nnunetv2"))


def test_both_packages_editable_work_together(environment_without_nnunet: Environment, checkout: Path) -> None:
    environment_without_nnunet.install("--editable", ROOT)
    assert look_up(environment_without_nnunet) == (FOUND, str(checkout / "nnunetv2"))


@pytest.mark.parametrize("flags", [[], ["-S"]], ids=["PYTHONPATH", "python -S"])
def test_where_no_start_up_files_are_processed_the_package_runs_as_a_module(
    environment: Environment, wheel: Path, tmp_path: Path, flags: list[str]
) -> None:
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    add_as_stock_command(PROBE, unpacked)
    path = os.pathsep.join(map(str, (unpacked, environment.folder / "linked_packages")))
    assert environment.run(*flags, "-c", IS_REGISTERED, PYTHONPATH=path) == "False"
    assert look_up(environment, *flags, "-m", "nnunet_fedmepd", "probe", PYTHONPATH=path)[0] == FOUND


def add_as_stock_command(script: Path, folder: Path) -> None:
    """Put a script into a folder as an installed distribution with the command `nnUNetv2_probe`."""
    metadata = folder / "fedmepd_probe-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fedmepd-probe\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[console_scripts]\nnnUNetv2_probe = fedmepd_probe:main\n")
    shutil.copy(script, folder / "fedmepd_probe.py")


def test_the_wheel_carries_the_hook_at_its_root_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"nnunet_fedmepd_hook.py", "nnunet_fedmepd.pth", "nnunet_fedmepd.start"} <= set(names)
    assert {"nnunet_fedmepd/py.typed", "dataset_conversion/__init__.py"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "plans/"))]


def test_the_start_file_names_what_the_pth_file_calls() -> None:
    hook = ROOT / "nnunet_fedmepd" / "nnunet_plugin" / "startup_hook"
    module, function = (hook / "nnunet_fedmepd.start").read_text().strip().split(":")
    line = (hook / "nnunet_fedmepd.pth").read_text()
    assert line == f"import {module}; {module}.{function}()\n"
