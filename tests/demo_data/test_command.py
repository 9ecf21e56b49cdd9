from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from nnunet_fedmepd.cli import main

SMALL = ["--shape", "25", "30", "26", "--spacing", "4", "--workers", "1"]


def test_the_command_makes_the_data_and_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "data", tmp_path / "overview.png"
    arguments = ["--sites", "2", "--cases-per-site", "2", "1", "--layout", "brats2023", "--picture", str(picture)]
    assert main(["demo-data", str(out), *SMALL, *arguments]) == 0
    with (out / "site_mapping.csv").open(newline="", encoding="utf-8") as file:
        cases = [row["case"] for row in csv.DictReader(file)]
    assert cases == ["BraTS-GLI-00000-000", "BraTS-GLI-00001-000", "BraTS-GLI-00002-000"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(out / "site_mapping.csv") in capsys.readouterr().out


def test_every_option_reaches_the_settings(tmp_path: Path) -> None:
    options = {"seed": 5, "sites": 1, "heterogeneity": 0.5, "confounders": 0.25, "mass_effect": 2.0}
    flags = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    counts = ["--cases-per-site", "3", "--val-per-site", "1", "--test-per-site", "1", "--layout", "brats2018"]
    assert main(["demo-data", str(tmp_path / "data"), *SMALL, *flags, *counts]) == 0
    stored = json.loads((tmp_path / "data" / "demo_data.json").read_text(encoding="utf-8"))
    counted = {"cases_per_site": 3, "val_per_site": 1, "test_per_site": 1}
    expected = options | counted | {"layout": "brats2018", "spacing_mm": 4.0}
    assert {name: stored[name] for name in expected} == expected
    with (tmp_path / "data" / "site_mapping.csv").open(newline="", encoding="utf-8") as file:
        assert [row["split"] for row in csv.DictReader(file)] == ["train", "val", "test"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--full", "--spacing", "2"], "leave out --shape and --spacing"),
        (["--full", "--shape", "80", "80", "80"], "leave out --shape and --spacing"),
        (["--sites", "3", "--cases-per-site", "1", "2"], "one for each of the 3 sites"),
        (["--picture", "overview.pdf"], "ends in .png; found overview.pdf"),
        (["--workers", "0"], "workers: expected at least 1"),
    ],
)
def test_bad_arguments_stop_before_anything_is_written(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo-data", str(tmp_path / "data"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
