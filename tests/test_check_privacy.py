"""`fedmepd check` and privacy: what is protected, and the epsilon that the whole run will spend."""

from __future__ import annotations

import pytest

from nnunet_fedmepd.commands.privacy_lines import rounded_up
from tests.test_check import checked, write_file

PRIVACY = "[method.privacy]\nclipping_norm = 0.5\nnoise_multiplier = 20"


@pytest.fixture(autouse=True)
def no_nnunet_folders(monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)


def test_the_epsilon_of_the_whole_run_is_told_for_every_site(capsys, tmp_path):
    file = write_file(tmp_path, a="absent_rounds = [1, 2]", tables=f"[method]\nanchors = false\n{PRIVACY}")
    code, printed, _ = checked(capsys, file)
    assert code == 0
    assert (
        "every update is clipped at the site to norm 0.5 and gets Gaussian noise of standard deviation 10;" in printed
    )
    assert "the coordinator need not be trusted" in printed
    assert "any two data sets of a site with equally many training cases" in printed
    assert "lead: epsilon = 1.2, delta = 1e-05 (10 updates in the whole run)" in printed
    assert "a: epsilon = 1.07, delta = 1e-05 (8 updates in the whole run)" in printed


def test_a_lead_without_protection_is_named_and_without_privacy_nothing_is_said(capsys, tmp_path):
    _, printed, _ = checked(capsys, write_file(tmp_path, tables=f"{PRIVACY}\nprotect_leads = false"))
    assert "lead: not protected (protect_leads = false)" in printed
    assert "privacy" not in checked(capsys, write_file(tmp_path))[1]
    _, printed, _ = checked(capsys, write_file(tmp_path, tables=f'[method]\nvariant = "local"\n{PRIVACY}'))
    assert "nothing is exchanged, so there is nothing to protect" in printed
    assert "epsilon" not in printed


def test_an_epsilon_is_never_told_smaller_than_it_is():
    assert [rounded_up(value) for value in (0.0, 1.2301, 5425.509, 0.05)] == [0.0, 1.24, 5430.0, pytest.approx(0.05)]
