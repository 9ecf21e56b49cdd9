"""How a user says which modalities each site has."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_conversion import SiteAssignment
from dataset_conversion.site_modalities import read_modalities, with_modalities
from nnunet_fedmepd.errors import ConfigurationError, DatasetError, ModalityError

WANTED = {"c1": ("T1ce", "T2"), "c2": ("FLAIR",)}


def test_words_name_a_site_and_its_modalities() -> None:
    assert read_modalities(["c1=T1ce,T2", "c2=FLAIR"]) == WANTED


def test_nothing_said_changes_nothing() -> None:
    sites = [SiteAssignment("c1", ("one",))]
    assert with_modalities(sites, read_modalities([])) == sites


@pytest.mark.parametrize("names", ["T1ce+T2", "T1ce;T2", "T1ce T2", "T1ce|T2", '"T1ce, T2"'])
def test_csv_names_them_with_any_separator(tmp_path: Path, names: str) -> None:
    (tmp_path / "m.csv").write_text(f"site,modalities\nc1,{names}\nc2,FLAIR\n")
    assert read_modalities([str(tmp_path / "m.csv")]) == WANTED


def test_toml_names_them_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('[modalities]\nc1 = ["T1ce", "T2"]\nc2 = ["FLAIR"]\n')
    assert read_modalities([str(tmp_path / "m.toml")]) == WANTED


def test_only_the_named_sites_change() -> None:
    sites = [SiteAssignment("c1", ("one",)), SiteAssignment("c3", ("two",))]
    changed = with_modalities(sites, {"c1": ("t2w", "t1c")})
    assert [site.modalities for site in changed] == [("T1ce", "T2"), ("T1", "T1ce", "T2", "FLAIR")]


def test_site_without_a_case_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"for site c9, which has no case\n  expected: one of the sites c1"):
        with_modalities([SiteAssignment("c1", ("one",))], {"c9": ("T1",)})


def test_unknown_modality_is_refused_with_its_site() -> None:
    with pytest.raises(ModalityError, match="Unknown modality 'CT' in the modalities of site c1"):
        with_modalities([SiteAssignment("c1", ("one",))], {"c1": ("CT",)})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["c1=T1", "c2"], "Cannot read 'c2': expected SITE=MODALITY"),
        (["=T1"], "Cannot read '=T1'"),
        (["c1=T1", "c1=T2"], "modalities of site c1 are given twice, again in c1=T2"),
    ],
)
def test_word_that_says_nothing_clear_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_modalities(words)


@pytest.mark.parametrize("content", ['c1 = ["T1"]', '[modalities]\nc1 = "T1"', "[modalities]\nc1 = [1]"])
def test_toml_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.toml").write_text(content)
    with pytest.raises(ConfigurationError, match=r"m.toml has no table of modalities: expected \[modalities\]"):
        read_modalities([str(tmp_path / "m.toml")])


def test_toml_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text("[modalities")
    with pytest.raises(ConfigurationError, match=r"Cannot read .*m.toml"):
        read_modalities([str(tmp_path / "m.toml")])


def test_csv_that_names_a_site_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("site,modalities\nc1,T1\nc1,T2\n")
    with pytest.raises(ConfigurationError, match=r"site c1 are given twice, again in .*m.csv, line 3"):
        read_modalities([str(tmp_path / "m.csv")])
