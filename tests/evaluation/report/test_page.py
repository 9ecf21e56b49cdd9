"""The page: every number that was measured is on it, what is missing is named, nothing is fetched."""

from __future__ import annotations

import statistics
from datetime import datetime

import numpy as np
import pytest

from nnunet_fedmepd.evaluation.report.page import render
from nnunet_fedmepd.evaluation.report.record import SliceAttention
from tests.evaluation.report.made_up import REGIONS, SITES, Page, federation, record, scores, turn

WRITTEN = datetime(2026, 11, 24, 20, 15)


def page(run) -> Page:
    return Page(render(run, WRITTEN))


def test_every_site_and_region_has_the_mean_and_spread_of_the_tables():
    measured = scores()
    shown = page(record(scores=measured))
    first_rows = shown.rows[: 1 + len(SITES) + 1]
    for site, row in zip(SITES, first_rows[1:], strict=False):
        assert row[0].split(" ")[0] == site
        assert row[2] == "4"
        for region, cell in zip(REGIONS, row[3:], strict=False):
            dice = [score.dice for score in measured if (score.site, score.region) == (site, region)]
            assert cell == f"{statistics.mean(dice):.3f} ± {statistics.stdev(dice):.3f}"
    without_lead = [s.dice for s in measured if s.site != "lead" and s.region == REGIONS[0]]
    assert first_rows[-1][:4] == ["mean, lead left out", "", "", f"{statistics.mean(without_lead):.3f}"]
    hd95 = [score.hd95_mm for score in measured if (score.site, score.region) == ("b", REGIONS[1])]
    assert f"{statistics.mean(hd95):.1f} ± {statistics.stdev(hd95):.1f}" in shown.text


def test_a_page_needs_no_network_and_is_the_same_for_the_same_run():
    run = record(scores=scores())
    html = render(run, WRITTEN)
    assert Page(html).needs_nothing_else()
    assert html.count("data:image/svg+xml;base64,") == html.count("<img")
    assert html == render(run, WRITTEN)


def test_a_run_of_a_thousand_rounds_and_many_sites_makes_a_small_page():
    run = record(1000)
    assert len(render(run, WRITTEN)) < 2_000_000


def test_the_traffic_table_adds_up_what_the_journal_says():
    turns = [turn(site, number, bytes_sent=number * 1_000_000) for number in (1, 2, 3) for site in SITES]
    shown = page(record(turns=turns, refused={"a": 1}))
    rows = {row[0]: row for row in shown.rows if row[0] in SITES}
    assert rows["a"] == ["a", "3", "1", "6.0", "1.00", "3.00", "2.0", "6 s"]
    assert rows["b"][2] == "0"


def test_before_the_first_round_ends_every_part_says_what_it_waits_for():
    none = np.zeros((0, 0), bool)
    shown = page(record(turns=[], anchors=[], valid=none, layers=[]))
    assert "No site has finished a round yet." in shown.text
    assert "anchors come with the first" in shown.text
    assert "img" not in shown.tags


def test_what_was_not_evaluated_is_named_with_the_command_that_does_it():
    assert "fedmepd evaluate '/runs/made up'" in page(record()).text
    some = page(record(scores=scores(("lead", "a"))))
    assert "The models of b have not been evaluated" in some.text


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ({"variant": "local"}, "Every site trains alone in this run"),
        ({"variant": "fedmema"}, "The decoder is wholly personal in this run"),
        ({"variant": "fedavg"}, "The decoder is wholly shared in this run"),
        ({"anchors": False}, "This run works without anchors"),
    ],
)
def test_what_a_variant_does_not_have_is_said_with_the_command_of_one_that_has(method, sentence):
    turns = [turn("lead", number) for number in (1, 2)]
    run = record(federation=federation(method=method), turns=turns, anchors=[], valid=np.zeros((0, 0), bool))
    shown = page(run)
    assert sentence in shown.text
    assert "fedmepd run FILE --variant fedmepd" in shown.text


def test_a_journal_of_an_older_version_is_shown_as_far_as_it_goes():
    old = [{k: v for k, v in turn(s, n).items() if k not in {"personal", "agreement"}} for n in (1, 2) for s in SITES]
    shown = page(record(turns=old, layers=[]))
    assert "does not say which filters are personal" in shown.text
    assert shown.text.count("older version") == 2


def test_in_warm_up_nothing_is_judged_and_no_filter_is_personal():
    turns = [turn(site, 1, personal=[0, 0, 0], shared_filters=16) for site in SITES]
    shown = page(record(turns=turns, federation=federation(rounds=100)))
    assert "no filter of any site is personal" in shown.text
    assert "begins after round 4" in shown.text


def test_names_cannot_break_the_page():
    named = federation().model_copy(update={"name": "<script>alert(1)</script>"})
    assert "script" not in page(record(federation=named)).tags


def test_attention_is_told_of_the_scales_that_are_calibrated():
    image, labels, shares = np.zeros((4, 4)), np.zeros((4, 4), int), np.full((4, 2, 2), 0.25)
    coarse_only = SliceAttention("a", "case7", "T1", image, labels, shares, np.ones((2, 2)), (0.75,))
    shown = page(record(attention=[coarse_only]))  # the anchors are those of two scales
    assert ["site", "case", "scale 2"] in shown.rows
    assert ["a", "case7", "0.750"] in shown.rows
    assert "as the calibration at scale 2 sees it" in shown.text
