"""A conversion that ends early leaves no dataset, and the next one cleans up after it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_conversion import SiteAssignment, convert_brats
from dataset_conversion.partial import complete_folder
from nnunet_fedmepd.errors import DatasetError
from tests.dataset_conversion.small_release import SmallRelease

ROOT = Path(__file__).resolve().parents[2]
CASES = [f"BraTS20_Training_00{n}" for n in range(1, 5)]

# Converts two sites of two cases, and stops for good when it is about to copy the 11th of 16 scans: the first site is
# complete then, the second has one case and a part of another.
STOPPING_CONVERSION = """
import sys, time
from dataset_conversion import SiteAssignment, convert_brats
copied = 0
def stop_at_eleventh(event, arguments):
    global copied
    if event == "shutil.copyfile":
        copied += 1
        if copied == 11:
            print("stopped", flush=True)
            time.sleep(600)
sys.addaudithook(stop_at_eleventh)
source, out, *cases = sys.argv[1:]
sites = [SiteAssignment("a", tuple(cases[:2])), SiteAssignment("b", tuple(cases[2:]))]
convert_brats("brats2020", source, out, sites)
"""


def convert(release: SmallRelease, raw: Path) -> list[Path]:
    sites = [SiteAssignment("a", tuple(CASES[:2])), SiteAssignment("b", tuple(CASES[2:]))]
    return convert_brats("brats2020", release.root, raw, sites)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_killed_conversion_leaves_no_dataset_and_the_next_one_removes_its_rest(
    release: SmallRelease, raw: Path
) -> None:
    for case in CASES:
        release.add(case)
    command = [sys.executable, "-c", STOPPING_CONVERSION, str(release.root), str(raw), *CASES]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stopped\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    rest = [".Dataset500_BraTS2020_a.partial", ".Dataset501_BraTS2020_b.partial"]
    assert sorted(path.name for path in raw.iterdir()) == rest
    assert len(list((raw / rest[1] / "imagesTr").iterdir())) > 0

    datasets = convert(release, raw)
    assert sorted(raw.iterdir()) == datasets
    assert [len(list((dataset / "imagesTr").iterdir())) for dataset in datasets] == [8, 8]


def test_conversion_that_cannot_write_leaves_nothing(release: SmallRelease, raw: Path) -> None:
    for case in CASES:
        release.add(case)
    raw.mkdir()
    (raw / ".Dataset501_BraTS2020_b.partial").write_text("A file, where the second site needs a folder.")
    with pytest.raises(DatasetError, match=rf"The output cannot be written\n  file: {raw}\n  found: .*Not a directory"):
        convert(release, raw)
    assert [path.name for path in raw.iterdir()] == [".Dataset501_BraTS2020_b.partial"]


def test_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    with complete_folder(tmp_path / "data") as folder:
        (folder / "file").touch()
        assert not (tmp_path / "data").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "file"]


def test_folder_does_not_appear_when_its_making_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with complete_folder(tmp_path / "data") as folder:
            (folder / "file").touch()
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fail()
    assert list(tmp_path.iterdir()) == []
