"""`[method.privacy]`: what it may say, whom it protects, and how a comparison changes it."""

from __future__ import annotations

from typing import Any

import pytest

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import parse_federation
from nnunet_fedmepd.config.methods import parse_methods
from nnunet_fedmepd.errors import ConfigurationError

PRIVACY = {"clipping_norm": 1.0, "noise_multiplier": 2.0}


def federation(privacy: Any = None, rounds: int = 10, **method: Any) -> Federation:
    sites = [
        {"name": "university", "dataset": 500, "lead": True},
        {"name": "county", "dataset": 501, "absent_rounds": [1, 2, 9]},
    ]
    method = {"anchors": False, **method} | ({} if privacy is None else {"privacy": privacy})
    file = {"name": "f", "modalities": ["T1", "T2"], "rounds": rounds, "site": sites, "method": method}
    return parse_federation(file, "f.toml")


@pytest.mark.parametrize(
    ("privacy", "line"),
    [
        ({**PRIVACY, "clipping_norm": 0}, "method.privacy.clipping_norm: expected a number greater than 0, found 0"),
        (
            {**PRIVACY, "clipping_norm": -1.0},
            "method.privacy.clipping_norm: expected a number greater than 0, found -1.0",
        ),
        ({**PRIVACY, "noise_multiplier": 0.0}, "method.privacy.noise_multiplier: expected a number greater than 0"),
        ({**PRIVACY, "noise_multiplier": float("nan")}, "method.privacy.noise_multiplier: expected a"),
        ({**PRIVACY, "clipping_norm": float("inf")}, "method.privacy.clipping_norm: expected a finite number"),
        ({**PRIVACY, "delta": 1}, "method.privacy.delta: expected a number less than 1, found 1"),
        ({**PRIVACY, "delta": 0.0}, "method.privacy.delta: expected a number greater than 0, found 0.0"),
        ({"clipping_norm": 1.0}, "method.privacy.noise_multiplier: missing"),
        ({**PRIVACY, "noise": 1.0}, "method.privacy.noise: unknown key"),
        ({**PRIVACY, "protect_leads": "no"}, "method.privacy.protect_leads: expected true or false"),
        (3, "method.privacy: expected a table, found 3"),
    ],
)
def test_impossible_values_are_refused_by_name(privacy, line):
    with pytest.raises(ConfigurationError) as error:
        federation(privacy)
    assert "f.toml has 1 mistake:" in str(error.value)
    assert line in str(error.value)


def test_a_key_of_the_table_elsewhere_is_told_where_it_belongs():
    with pytest.raises(ConfigurationError, match=r"noise_multiplier: unknown key; it belongs in \[method.privacy\]"):
        federation(noise_multiplier=1.0)


def test_anchors_of_leads_that_want_protection_are_refused():
    with pytest.raises(
        ConfigurationError, match=r"method.anchors: .* cannot be protected; set anchors = false, or prot"
    ):
        federation(PRIVACY, anchors=True)
    for accepted in ({"exchange": False}, {"variant": "fedavg", "anchors": False}):
        federation(PRIVACY, **accepted)
    federation({**PRIVACY, "protect_leads": False}, anchors=True)


def test_whose_updates_are_protected():
    assert federation().privacy_of("county") is None
    protected = federation(PRIVACY)
    assert protected.privacy_of("county") == protected.privacy_of("university") == protected.method.privacy
    public_lead = federation({**PRIVACY, "protect_leads": False})
    assert public_lead.privacy_of("university") is None
    assert public_lead.privacy_of("county") is not None
    assert federation({**PRIVACY, "protect_leads": False}, lead_role="site").privacy_of("university") is not None
    assert federation(PRIVACY, exchange=False).privacy_of("county") is None


def test_updates_are_counted_in_rounds_in_which_a_site_is_there_and_something_is_exchanged():
    assert federation().updates_of("university") == 10
    assert federation().updates_of("county") == 7
    tuned = federation(fine_tuning_share=0.3)
    assert (tuned.updates_of("university"), tuned.updates_of("county")) == (7, 5)
    assert federation(lead_role="none").updates_of("university") == 0
    assert federation(exchange=False).updates_of("county") == 0


def test_a_comparison_can_switch_it_on_and_change_it():
    changes = ":method.anchors=false:method.privacy.clipping_norm=1:method.privacy.noise_multiplier=0.5"
    _, private, shared = parse_methods(
        f"fedmepd,p=fedmepd{changes},q=fedmepd{changes}:method.decoder=shared", federation()
    )
    for method in (private, shared):
        privacy = method.federation.method.privacy
        assert (privacy.clipping_norm, privacy.noise_multiplier, privacy.delta) == (1.0, 0.5, 1e-5)
    (changed,) = parse_methods("x=fedmepd:method.anchors=false:method.privacy.delta=1e-7", federation(PRIVACY))
    assert (changed.federation.method.privacy.noise_multiplier, changed.federation.method.privacy.delta) == (2.0, 1e-7)
    with pytest.raises(ConfigurationError, match=r"method.privacy.noise_multiplier: missing"):
        parse_methods("fedmepd:method.privacy.clipping_norm=1", federation())
