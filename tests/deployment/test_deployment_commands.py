"""`fedmepd deploy` and `fedmepd site` as a user meets them, before anything runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra: pip install '.[deployment]'")

from nnunet_fedmepd.cli import EXIT_ERROR, main
from nnunet_fedmepd.commands import deployment_extra
from nnunet_fedmepd.errors import ConfigurationError
from tests.conftest import NnunetPaths
from tests.deployment import made_kits
from tests.nnunet_plugin.small_dataset import SHAPE, make_dataset, write_image


def test_init_tells_what_to_do_with_each_kit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, kits = made_kits.write_federation(tmp_path), tmp_path / "kits"
    assert main(["deploy", "init", str(file), "--out", str(kits), "--host", "fl.hospital.org"]) == 0
    told = capsys.readouterr().out
    assert f"fedmepd deploy up {kits / 'coordinator'}" in told
    assert "county:" in told
    service = (kits / "coordinator" / "fedmepd-coordinator.service").read_text()
    assert f"deploy up {kits / 'coordinator'}" in service
    assert "listen 0.0.0.0:8443 ssl;" in (kits / "coordinator" / "nginx.conf").read_text()
    assert main(["deploy", "status", str(kits / "coordinator")]) == 0
    assert "no round has been started yet" in capsys.readouterr().out


def test_fingerprints_are_the_same_at_the_site_and_at_the_coordinator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {}
    (tmp_path / "requests").mkdir()
    for site in ("university", "county"):
        assert main(["site", "keys", site, str(tmp_path / site)]) == 0
        told[site] = capsys.readouterr().out.split("Node key: ")[1].split(",")[0]
        shutil.copy(tmp_path / site / f"{site}.request", tmp_path / "requests")
    file = made_kits.write_federation(tmp_path)
    command = ["deploy", "init", str(file), "--out", str(tmp_path / "kits"), "--host", "127.0.0.1"]
    assert main([*command, "--requests", str(tmp_path / "requests")]) == 0
    printed = capsys.readouterr().out
    assert all(f"node key {fingerprint}" in printed for fingerprint in told.values())


def test_a_site_whose_data_are_not_there_does_not_join(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kits = made_kits.make(tmp_path)
    for action in ("check", "up"):
        assert main(["site", action, str(kits / "sites" / "county")]) == EXIT_ERROR
        assert "501" in capsys.readouterr().err
    assert not (kits / "sites" / "county" / "logs").exists()


def test_a_site_s_label_maps_are_read_before_it_joins(
    nnunet_paths: NnunetPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_dataset("Dataset501_Own", ["T2", "FLAIR"])
    label = dataset.raw / "labelsTr" / "case1.nii.gz"
    write_image(label, np.full(SHAPE, 9))
    kit = made_kits.make(tmp_path) / "sites" / "county"
    folders = {"nnunet_raw": nnunet_paths.raw, "nnunet_preprocessed": nnunet_paths.preprocessed}
    made_kits.write_site_toml(kit, tmp_path, **{name: str(folder) for name, folder in folders.items()})
    assert main(["site", "check", str(kit)]) == EXIT_ERROR
    told = capsys.readouterr().err
    assert "values that dataset.json does not declare" in told
    assert str(label) in told


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment_extra, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"flwr and cryptography not installed.*nnunet-fedmepd\[deployment\]"):
        deployment_extra.require_deployment_extra()
