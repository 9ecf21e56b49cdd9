"""Methods of a comparison, as they are written on the command line."""

from __future__ import annotations

import pytest

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import load_federation, parse_federation, recipe
from nnunet_fedmepd.config.methods import parse_methods
from nnunet_fedmepd.errors import ConfigurationError

DEMO = load_federation("demo")


def test_variants_become_federations_of_the_same_sites() -> None:
    local, fedmepd = parse_methods("local, fedmepd", DEMO)
    assert (local.name, fedmepd.name) == ("local", "fedmepd")
    assert (local.federation.method.exchange, fedmepd.federation.method.exchange) == (False, True)
    assert local.federation.site == fedmepd.federation.site == DEMO.site


def test_pooled_trains_as_local_does() -> None:
    (pooled,) = parse_methods("pooled:training.initial_lr=1e-3", DEMO)
    assert pooled.pooled
    assert pooled.federation.method.variant == "local"
    assert pooled.federation.training["initial_lr"] == 1e-3


def test_values_of_the_file_are_changed_and_the_method_is_named_after_them() -> None:
    plain, named = parse_methods(
        "fedmepd:method.anchors=false:method.personalization.patience=3:training.optimizer=sgd,one=fedmepd:rounds=2",
        DEMO,
    )
    assert plain.name == "fedmepd_method.anchors_false_method.personalization.patience_3_training.optimizer_sgd"
    assert not plain.federation.method.anchors
    assert plain.federation.method.personalization == {"patience": 3}
    assert plain.federation.training["optimizer"] == "sgd"
    assert (named.name, named.federation.rounds, named.federation.method.anchors) == ("one", 2, True)


def test_changes_are_made_before_a_variant_is_checked_so_that_no_site_need_lead() -> None:
    file = DEMO.model_dump()
    sites = [{**site, "lead": False} for site in file["site"]]
    alone = parse_federation({**file, "site": sites, "method": {"anchors": False}}, "no lead")
    text = "local,fedavg,fedmepd,fedmema:method.anchors=false,personal=fedmepd:method.decoder=personal,pooled"
    methods = {method.name: method.federation.method for method in parse_methods(text, alone)}
    assert not any(method.anchors for method in methods.values())
    assert methods["fedmema_method.anchors_false"].decoder == methods["personal"].decoder == "personal"
    with pytest.raises(ConfigurationError, match=r"'fedmema' has 1 mistake:\n  method.anchors: .* no site leads"):
        parse_methods("fedmema", alone)


def test_another_file_may_be_compared_if_it_is_about_the_same_data(tmp_path) -> None:
    text = recipe("demo").read_text()
    (tmp_path / "same.toml").write_text(text.replace("rounds = 8", "rounds = 3"))
    (same,) = parse_methods(f"short={tmp_path / 'same.toml'}", DEMO)
    assert (same.name, same.federation.rounds) == ("short", 3)
    (tmp_path / "other.toml").write_text(text.replace("dataset = 503", "dataset = 603"))
    with pytest.raises(ConfigurationError, match=r"other\.toml is not about the same data: it has another site"):
        parse_methods(f"other={tmp_path / 'other.toml'}", DEMO)


def test_the_same_sites_may_have_other_parts_in_another_file(tmp_path) -> None:
    text = recipe("demo").read_text().replace('name = "CBICA"', 'name = "CBICA"\nabsent_rounds = [1, 2]')
    (tmp_path / "late.toml").write_text(text)
    (late,) = parse_methods(f"late={tmp_path / 'late.toml'}", DEMO)
    assert late.federation.site_named("CBICA").absent_rounds == (1, 2)


def test_what_is_asked_of_every_method_is_asked_of_another_file_as_well(tmp_path) -> None:
    def asked(federation: Federation) -> Federation:
        return federation.shortened(2).on(["cpu"], 3)

    file = tmp_path / "other.toml"
    file.write_text(recipe("demo").read_text())
    for method in parse_methods(f"local,other={file}", asked(DEMO), asked):
        assert (method.federation.rounds, method.federation.run.workers) == (2, 3)
    file.write_text(recipe("demo").read_text().replace('name = "CBICA"', 'name = "CBICA"\nabsent_rounds = [3]'))
    with pytest.raises(ConfigurationError, match=r"(?s)other\.toml: 2 rounds has 1 mistake.*\[3\] are no rounds"):
        parse_methods(f"other={file}", asked(DEMO), asked)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lokal", "Unknown method 'lokal'"),
        ("local,local", "named twice: local"),
        ("", "no method to compare"),
        ("fedmepd:anchors=false", "'anchors=false' is no change of the file"),
        ("fedmepd:rounds.of.cards=3", "'rounds.of.cards=3' is no change of the file"),
        ("fedmepd:method=local", "'method=local' is no change of the file"),
        ("fedmepd:seed=3", "'seed=3' is no change of the file"),
        ("fedmepd:method.anchor=false", "method.anchor: unknown key"),
        ("fedmepd:method.anchors=no", "method.anchors: expected true or false"),
        ("a/b=local", "'a/b' cannot be a folder's name"),
    ],
)
def test_what_cannot_be_compared_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_methods(text, DEMO)
