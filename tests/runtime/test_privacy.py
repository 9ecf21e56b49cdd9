"""Protected updates in a whole run: what a resumed run makes of them, what a site keeps to itself, what was spent."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

import pytest

from nnunet_fedmepd.cli import main
from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.federation.storage import StateFileError
from nnunet_fedmepd.runtime.privacy_ledger import PrivacyError, ledger_file, updates_sent
from nnunet_fedmepd.runtime.run_folder import RunFolder
from tests.runtime.small_federation import OWNED, alike, run, small_federation

PRIVACY = {"clipping_norm": 0.5, "noise_multiplier": 0.01}


def private_federation(rounds: int = 2, privacy: dict[str, Any] = PRIVACY, **method: Any) -> Federation:
    personalization = {"patience": 1, "warm_up_rounds": 0}
    return small_federation(
        rounds, method={"anchors": False, "personalization": personalization, "privacy": privacy, **method}
    )


def ledger(folder: Path, site: str) -> dict[str, Any]:
    return json.loads(ledger_file(RunFolder(folder), site).read_text())


def sums(folder: Path, round_number: int) -> bytes:
    return RunFolder(folder).coordinator.file(round_number).read_bytes()


def forget_last_turns(folder: Path, round_number: int, sites: list[str]) -> None:
    """Leave what a power cut leaves before these sites' states and the coordinator's were saved."""
    for states in (RunFolder(folder).coordinator, *(RunFolder(folder).site(site) for site in sites)):
        states.file(round_number).unlink()


def test_with_no_clipping_and_noise_that_vanishes_a_run_is_that_without_privacy_to_the_bit(datasets, tmp_path):
    plain = run(private_federation(privacy=None), tmp_path / "plain")
    assert not list((tmp_path / "plain").rglob("ledger.json"))
    nothing = {"clipping_norm": 1e9, "noise_multiplier": 1e-69}  # rounded to 0 in float32
    assert alike(plain, run(private_federation(privacy=nothing), tmp_path / "nothing"))
    assert not alike(plain, run(private_federation(), tmp_path / "private"))


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_a_killed_run_ends_to_the_bit_as_if_undisturbed_and_spends_nothing_more(datasets, tmp_path, codec):
    federation, folder = private_federation(3, codec=codec), tmp_path / "run"
    weights, last = run(federation, folder), None
    last, sent = sums(folder, 3), {site: ledger(folder, site) for site in OWNED}
    # a was killed after its training, before it saved and sent; b and the lead after they saved, before they sent.
    forget_last_turns(folder, 3, ["a"])
    assert alike(weights, run(federation, folder))
    assert sums(folder, 3) == last
    assert {site: ledger(folder, site) for site in OWNED} == sent
    assert all(len(own["sent"]) == 3 for own in sent.values())


def test_noise_follows_from_the_secret_and_not_from_the_files_seed(datasets, tmp_path):
    federation = private_federation()
    first = run(federation, tmp_path / "first")
    for site in OWNED:
        file = ledger_file(RunFolder(tmp_path / "same"), site)
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"secret": ledger(tmp_path / "first", site)["secret"], "sent": []}))
    assert alike(first, run(federation, tmp_path / "same"))
    assert not alike(first, run(federation, tmp_path / "other"))
    secrets = {ledger(tmp_path / name, site)["secret"] for name in ("first", "other") for site in OWNED}
    assert len(secrets) == 2 * len(OWNED)
    assert all(len(bytes.fromhex(secret)) == 32 for secret in secrets)


def test_a_site_keeps_its_secret_its_loss_and_its_dice_to_itself(datasets, tmp_path):
    folder = tmp_path / "run"
    run(private_federation(1, {**PRIVACY, "protect_leads": False}, anchors=True), folder)
    reports = {line["site"]: line for line in RunFolder(folder).journal()}
    for site in ("a", "b"):
        assert math.isnan(reports[site]["train_loss"])
        assert math.isnan(reports[site]["pseudo_dice"])
        assert stat.S_IMODE(ledger_file(RunFolder(folder), site).parent.stat().st_mode) == 0o700
    assert math.isfinite(reports["lead"]["train_loss"])
    assert not ledger_file(RunFolder(folder), "lead").exists()


def test_a_site_gives_no_more_away_than_announced_and_nothing_without_its_ledger(datasets, tmp_path):
    federation, folder = private_federation(), tmp_path / "run"
    run(federation, folder)
    file = ledger_file(RunFolder(folder), "a")
    forget_last_turns(folder, 2, ["a"])
    content = ledger(folder, "a")
    file.write_text(json.dumps({**content, "sent": ["an update", "another one"]}))
    with pytest.raises(PrivacyError, match="'a' gave away 2 updates, all that the federation file announces"):
        run(federation, folder)
    file.write_text("{")
    with pytest.raises(StateFileError, match=r"ledger.json is damaged"):
        run(federation, folder)
    file.unlink()
    with pytest.raises(PrivacyError, match=r"'a' trained in this run before, but .*ledger.json is missing"):
        run(federation, folder)


def test_status_tells_what_was_spent(datasets, tmp_path, capsys):
    folder = tmp_path / "run"
    run(private_federation(2, {"clipping_norm": 0.5, "noise_multiplier": 20.0, "protect_leads": False}), folder)
    capsys.readouterr()
    assert main(["status", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "lead: not protected (protect_leads = false)" in printed
    # mu = 2 * sqrt(2) / 20; the closed form gives 0.49698 at delta 1e-5.
    assert "a: epsilon = 0.497, delta = 1e-05 (2 updates so far)" in printed
    assert updates_sent(RunFolder(folder), "b") == 2
