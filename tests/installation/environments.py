"""Virtual environments to install into, made in a second each because they link to the running one's packages."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check")
OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation")


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own, with torch, nnU-Net and the rest linked from the running environment.

    The links lie in a folder that a path line in a `.pth` file puts behind the environment's own packages. Python
    processes no start-up files in folders added in this way: only what is really installed here has an effect.
    """

    folder: Path

    @classmethod
    def create(cls, folder: Path, omitted: tuple[str, ...] = ()) -> Environment:
        """Make the environment with all packages but this one and the omitted ones."""
        venv.create(folder, symlinks=True)
        environment = cls(folder)
        link_packages(folder / "linked_packages", ("nnunet_fedmepd", "dataset_conversion", *omitted))
        (environment.site_packages / "linked_packages.pth").write_text(f"{folder / 'linked_packages'}\n")
        return environment

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where its own packages are."""
        return Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(self.folder)}))

    def install(self, *what: str | Path) -> None:
        """`pip install` without the network and without dependencies."""
        self._pip("install", *OFFLINE, *what)

    def uninstall(self, distribution: str) -> None:
        """`pip uninstall`."""
        self._pip("uninstall", "--yes", distribution)

    def _pip(self, *arguments: str | Path) -> None:
        _succeed([*PIP, "--python", self.python, *arguments], cwd=self.folder)

    def run(self, *arguments: str | Path, **variables: str) -> str:
        """Run its interpreter in an empty place and return the last line printed."""
        return _succeed([self.python, *arguments], cwd=self.folder, **variables).splitlines()[-1]

    def installed_files(self) -> set[str]:
        """Every file in the environment but compiled ones, relative to its folder."""
        return files_below(self.folder)


def link_packages(folder: Path, omitted: tuple[str, ...]) -> None:
    """Link everything in the running environment's package folders but what starts with one of the omitted names."""
    folder.mkdir()
    for packages in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(packages).iterdir():
            if not entry.name.startswith(omitted):
                (folder / entry.name).symlink_to(entry)


def files_below(folder: Path) -> set[str]:
    """Every file below a folder but compiled ones, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def build_wheel(folder: Path) -> Path:
    """Build this project's wheel into a folder."""
    _succeed([*PIP, "wheel", *OFFLINE, "--wheel-dir", folder, ROOT], cwd=folder)
    (wheel,) = folder.glob("nnunet_fedmepd-*.whl")
    return wheel


def _succeed(command: list[str | Path], cwd: Path, **variables: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("FEDMEPD_", "nnUNet_", "PYTHON"))}
    run = subprocess.run(command, cwd=cwd, env={**inherited, **variables}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"
    return run.stdout
