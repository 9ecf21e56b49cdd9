from __future__ import annotations

from dataclasses import asdict

from nnunet_fedmepd.demo_data.sites import draw_site


def test_sites_are_named_after_the_institutions_of_brats_2018_then_numbered() -> None:
    names = [draw_site(1, index, 1.0).name for index in (0, 1, 2, 13, 14)]
    assert names == ["CBICA", "2013", "TCIA01", "TMC", "SYN14"]


def test_a_sites_name_changes_nothing_else() -> None:
    named, unnamed = asdict(draw_site(1, 0, 1.0, "Lead")), asdict(draw_site(1, 0, 1.0))
    assert named.pop("name") == "Lead"
    unnamed.pop("name")
    assert named == unnamed


def test_without_heterogeneity_sites_differ_in_scale_and_slice_blur_only() -> None:
    first, second = (asdict(draw_site(1, index, 0.0)) for index in (0, 1))
    for site in (first, second):
        del site["index"], site["name"]
        for scanner in site["scanners"].values():
            assert 0.25 <= scanner.pop("scale") <= 3.0
            assert scanner.pop("slice_blur_mm") in (0.5, 0.8)
    assert first == second


def test_sites_depend_on_the_seed() -> None:
    assert draw_site(1, 0, 1.0).high_grade_share != draw_site(2, 0, 1.0).high_grade_share
