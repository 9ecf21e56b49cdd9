from __future__ import annotations

import pytest

from nnunet_fedmepd.demo_data.settings import DemoDataSettings
from nnunet_fedmepd.errors import ConfigurationError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "brats2021"}, "layout: expected one of brats2018, brats2020, brats2023; found brats2021"),
        ({"seed": -1}, "seed: expected 0 or more; found -1"),
        ({"sites": 0}, "sites: expected at least 1; found 0"),
        ({"spacing_mm": 0.1}, "spacing: expected 0.5 to 5.0 mm; found 0.1"),
        ({"spacing_mm": float("nan")}, "spacing: expected 0.5 to 5.0 mm; found nan"),
        ({"shape": (25, 24, 25), "spacing_mm": 4.0}, "shape: expected 3 numbers of at least 25 voxels"),
        ({"shape": (80, 80)}, "shape: expected 3 numbers"),
        ({"cases_per_site": (3, 3)}, "cases-per-site: expected one number, or one for each of the 4 sites"),
        ({"cases_per_site": 0}, "cases-per-site: expected 1 to 676; found 0"),
        ({"cases_per_site": 677}, "cases-per-site: expected 1 to 676; found 677"),
        ({"cases_per_site": (9, 9, 9, 2), "test_per_site": 2}, "test-per-site: expected 0 to 1, so that"),
        ({"cases_per_site": 4, "test_per_site": 2, "val_per_site": 2}, "val-per-site: expected 0 to 1, so that"),
        ({"test_per_site": -1}, "test-per-site: expected 0 to 9"),
        ({"heterogeneity": 3.5}, "heterogeneity: expected a number from 0 to 3; found 3.5"),
        ({"confounders": -0.1}, "confounders: expected a number from 0 to 2"),
        ({"mass_effect": float("nan")}, "mass_effect: expected a number from 0 to 3; found nan"),
        ({"site_names": ("A", "B", "A", "C")}, "site_names: expected 4 different names"),
        ({"site_names": ("A", "B")}, "site_names: expected 4 different names"),
        ({"site_names": ("A", "B", "C", "D_1")}, "site_names: expected names of letters, digits and '-'"),
    ],
)
def test_an_impossible_value_is_named_with_what_was_expected(settings: dict, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DemoDataSettings(**settings)
    assert message in str(caught.value)


def test_one_number_of_cases_is_for_every_site() -> None:
    assert DemoDataSettings(sites=3, cases_per_site=5).case_counts == (5, 5, 5)
    assert DemoDataSettings(sites=3, cases_per_site=(5, 1, 2)).case_counts == (5, 1, 2)


def test_sites_can_be_named() -> None:
    assert DemoDataSettings(sites=2).names == ("CBICA", "2013")
    assert DemoDataSettings(sites=2, site_names=("Lead", "North")).names == ("Lead", "North")
