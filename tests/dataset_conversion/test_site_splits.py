"""Which case goes to which site."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dataset_conversion import SiteAssignment, find_layout
from dataset_conversion.paper_split import paper_site
from dataset_conversion.splits import hold_out, split_as_published, split_by_institution, split_by_table
from nnunet_fedmepd.errors import ConfigurationError, DatasetError

BRATS2018, BRATS2020, BRATS2023 = (find_layout(name) for name in ("brats2018", "brats2020", "brats2023"))


def table(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "sites.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_table_says_who_has_which_cases_and_which_are_held_out(tmp_path: Path) -> None:
    file = table(
        tmp_path,
        "site, case, grade, split",
        "b, one, HGG, train",
        "lead, two, LGG, test",
        "b, three, HGG, test",
        "",
        "lead, four, HGG,",
    )
    assert split_by_table(file) == [
        SiteAssignment("lead", ("four",), ("two",)),
        SiteAssignment("b", ("one",), ("three",)),
    ]


def test_validation_cases_of_a_table_are_training_cases_that_choose_the_model(tmp_path: Path) -> None:
    file = table(tmp_path, "case,site,split", "one,a,train", "two,a,val", "three,a,test")
    assert split_by_table(file) == [SiteAssignment("a", ("one", "two"), ("three",), validation=("two",))]


def test_table_written_by_a_spreadsheet_begins_with_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "sites.csv"
    file.write_bytes(b"\xef\xbb\xbfcase,site\r\none,a\r\n")
    assert split_by_table(file) == [SiteAssignment("a", ("one",))]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["case;site", "one;a"], r"lacks the column 'case'\n.*sites.csv\n.*case,site.*\n  found: case;site"),
        (["case", "one"], r"lacks the column 'site'"),
        ([], r"lacks the column 'case'\n(.*\n)+  found: an empty file"),
        (["case,site", "one,a", "one,b"], r"Duplicate case\n  case: one\n.*sites.csv, line 3\n.*\n.*in line 2"),
        (["case,site", "one,"], r"A row without a site\n  case: one\n.*sites.csv, line 2"),
        (["case,site", ",a"], r"A row without a case\n.*sites.csv, line 2"),
        (["case,site,split", "one,a,dev"], r"Unknown split\n  case: one\n.*line 2\n.*train, val, test\n  found: dev"),
    ],
)
def test_table_with_a_fault_is_refused_with_its_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        split_by_table(table(tmp_path, *lines))


def test_table_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"The table does not exist\n.*nowhere.csv"):
        split_by_table(tmp_path / "nowhere.csv")


def test_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sites.csv").write_bytes(b"case,site\n\xff\xfe,a\n")
    with pytest.raises(DatasetError, match=r"The table is not text\n.*sites.csv\n  expected: UTF-8"):
        split_by_table(tmp_path / "sites.csv")


def test_names_of_2018_tell_the_institution() -> None:
    cases = ["Brats18_TCIA10_645_1", "Brats18_CBICA_AAB_1", "Brats18_2013_2_1", "Brats18_TCIA10_103_1"]
    assert split_by_institution(BRATS2018, cases) == [
        SiteAssignment("2013", ("Brats18_2013_2_1",)),
        SiteAssignment("CBICA", ("Brats18_CBICA_AAB_1",)),
        SiteAssignment("TCIA10", ("Brats18_TCIA10_645_1", "Brats18_TCIA10_103_1")),
    ]


def test_names_of_later_releases_tell_no_institution() -> None:
    with pytest.raises(ConfigurationError, match=r"brats2020 .* tell no institution; only those of brats2018 do"):
        split_by_institution(BRATS2020, ["BraTS20_Training_001"])


def test_published_sites_have_the_published_modalities() -> None:
    sites = split_as_published(BRATS2020, [])
    assert {site.name: "+".join(site.modalities) for site in sites} == {
        "lead": "T1+T1ce+T2+FLAIR",
        "c1": "T1+T1ce+FLAIR",
        "c2": "T1+T2+FLAIR",
        "c3": "T1ce+FLAIR",
        "c4": "T1+T2",
        "c5": "T1ce",
        "c6": "T2",
        "c7": "T1+T1ce+T2+FLAIR",
        "c8": "T1+T1ce+T2+FLAIR",
    }
    assert [site.name for site in sites] == ["lead", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8"]


def test_published_sites_of_2020_share_out_all_369_cases() -> None:
    sites = split_as_published(BRATS2020, [f"BraTS20_Training_{n:03d}" for n in range(1, 370)])
    counts = {"lead": 129, "c1": 30, "c2": 26, "c3": 28, "c4": 22, "c5": 34, "c6": 31, "c7": 34, "c8": 35}
    assert {site.name: len(site.training) for site in sites} == counts


@pytest.mark.parametrize(
    ("number", "site"),
    [(1, "lead"), (129, "lead"), (130, "c1"), (136, "c3"), (158, "c2"), (180, "c7"), (214, "c6"), (369, "c5")],
)
def test_published_site_of_2020_follows_from_the_number(number: int, site: str) -> None:
    assert paper_site(BRATS2020, f"BraTS20_Training_{number:03d}") == site


def test_published_sites_of_2018_divide_the_thirty_patients_of_institution_2013() -> None:
    sites = {patient: paper_site(BRATS2018, f"Brats18_2013_{patient}_1") for patient in range(30)}
    assert [patient for patient, site in sites.items() if site == "c6"] == [2, 7, 12, 13, 14, 17, 23, 25, 26]
    assert Counter(sites.values()) == {"c1": 21, "c6": 9}


@pytest.mark.parametrize(
    ("institution", "site"),
    [
        ("CBICA", "lead"),
        ("TCIA01", "c2"),
        ("TCIA04", "c3"),
        ("TCIA08", "c4"),
        ("TCIA12", "c5"),
        ("TCIA13", "c6"),
        ("TCIA02", "c7"),
        ("TCIA10", "c8"),
        ("TMC", None),
    ],
)
def test_published_site_of_2018_follows_from_the_institution(institution: str, site: str | None) -> None:
    assert paper_site(BRATS2018, f"Brats18_{institution}_2_1") == site


def test_publication_did_not_use_later_releases() -> None:
    with pytest.raises(ConfigurationError, match="covers brats2018 and brats2020, not brats2023"):
        split_as_published(BRATS2023, ["BraTS-GLI-00000-000"])


def site_of(*cases: str, name: str = "a") -> SiteAssignment:
    return SiteAssignment(name, cases)


TEN = [f"BraTS20_Training_{n:03d}" for n in range(1, 11)]


def test_held_out_share_is_exact_and_keeps_every_case() -> None:
    (site,) = hold_out([site_of(*TEN)], 0.4, 0, BRATS2020)
    assert (len(site.training), len(site.test)) == (6, 4)
    assert sorted(site.cases) == TEN


def test_draw_depends_on_seed_and_site_but_neither_on_other_sites_nor_on_order() -> None:
    def drawn(seed: int, *sites: SiteAssignment) -> set[str]:
        return set(hold_out(sites, 0.4, seed, BRATS2020)[-1].test)

    alone = drawn(0, site_of(*TEN))
    assert drawn(0, site_of("BraTS20_Training_300", name="b"), site_of(*reversed(TEN))) == alone
    assert any(drawn(seed, site_of(*TEN)) != alone for seed in range(1, 4))
    assert any(drawn(0, site_of(*TEN, name=name)) != alone for name in "bcd")


def test_time_points_of_one_patient_are_held_out_together() -> None:
    patients = [f"BraTS-GLI-{n:05d}" for n in range(6)]
    cases = [f"{patient}-00{time}" for patient in patients for time in range(3)]
    (site,) = hold_out([site_of(*cases)], 0.5, 0, BRATS2023)
    held_out = Counter(BRATS2023.patient(case) for case in site.test)
    assert sorted(held_out.values()) == [3, 3, 3]


def test_share_of_zero_holds_out_nothing() -> None:
    assert hold_out([site_of(*TEN)], 0, 0, BRATS2020) == [site_of(*TEN)]


@pytest.mark.parametrize("fraction", [-0.1, 1, 40])
def test_share_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigurationError, match="out of range: expected at least 0 and below 1"):
        hold_out([site_of(*TEN)], fraction, 0, BRATS2020)


def test_share_is_refused_where_a_table_has_chosen_the_test_cases() -> None:
    with pytest.raises(ConfigurationError, match=r"Site a has 1 test cases by the table's column 'split'"):
        hold_out([SiteAssignment("a", ("one",), ("two",))], 0.5, 0, BRATS2020)
