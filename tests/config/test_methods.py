"""Methods of a comparison, as they are written on the command line."""

from __future__ import annotations

import pytest

from nnunet_fedmepd.config.loading import load_federation, recipe
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
