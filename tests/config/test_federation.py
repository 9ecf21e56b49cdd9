"""A federation file is read whole: every mistake is told at once, in its place, with what to do."""

from __future__ import annotations

import re
import subprocess
import sys
from copy import deepcopy

import pytest

from nnunet_fedmepd.config.federation import VARIANTS, Federation
from nnunet_fedmepd.config.loading import load_federation, parse_federation, recipe, recipes
from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.errors import ConfigurationError

GOOD = {
    "name": "hospitals",
    "modalities": ["T1", "T1ce", "T2", "FLAIR"],
    "rounds": 100,
    "site": [
        {"name": "lead", "dataset": 500, "lead": True},
        {"name": "a", "dataset": 501, "modalities": ["T1ce"]},
        {"name": "b", "dataset": "Dataset502_B", "modalities": ["T2", "FLAIR"]},
    ],
}


def changed(*path, **changes):
    """Return the good file with keys of one table changed; the table is created where it is not there."""
    file = deepcopy(GOOD)
    table = file
    for part in path:
        table = table[part] if isinstance(part, int) else table.setdefault(part, {})
    table.update(changes)
    return file


def mistakes(file) -> str:
    with pytest.raises(ConfigurationError) as error:
        parse_federation(file, "file.toml")
    return str(error.value)


def test_what_is_not_said_has_the_published_default_or_its_share_of_the_run():
    federation = parse_federation(GOOD, "file.toml")
    assert federation.method.lead_share == 0.3
    assert federation.personalization.patience == 10
    assert federation.personalization.warm_up_rounds == 3  # 30 of 1,000
    assert federation.training_settings(TrainingSettings()).num_epochs == 100
    assert [site.name for site in federation.leads] == ["lead"]


def test_the_training_table_overrides_the_plans_and_the_rounds_fix_the_epochs():
    federation = parse_federation(changed("training", optimizer="sgd") | {"epochs_per_round": 2}, "file.toml")
    settings = federation.training_settings(TrainingSettings(save_every=7, optimizer="adam"))
    assert (settings.optimizer, settings.save_every, settings.num_epochs) == ("sgd", 7, 200)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_sets_its_switches(variant):
    method = parse_federation(changed("method", variant=variant), "file.toml").method
    assert all(getattr(method, switch) == value for switch, value in VARIANTS[variant].items())


def test_a_switch_that_the_file_sets_wins_over_the_variant():
    method = parse_federation(changed("method", variant="fedmema", decoder="shared"), "file.toml").method
    assert (method.variant, method.decoder) == ("fedmema", "shared")


def test_another_variant_of_a_file_keeps_everything_but_the_method():
    federation = parse_federation(changed("method", decoder="shared", lead_share=0.5), "file.toml")
    local = federation.as_variant("local")
    assert (local.name, local.method.exchange, local.method.decoder) == ("hospitals_local", False, "partial")
    assert local.site == federation.site


def test_devices_and_workers_can_be_replaced_and_are_checked_again():
    federation = parse_federation(GOOD, "file.toml")
    assert federation.on(["cpu"], 3).run.workers == 3
    assert federation.on(None, None) == federation
    with pytest.raises(ValueError, match="2 workers would share 1 devices"):
        federation.on(["cuda:0"], 2)


ONE_MISTAKE = {
    "unknown key": (changed(round=5), r"round: unknown key; did you mean 'rounds'\?"),
    "unknown key of a site": (changed("site", 1, leed=True), r"site\[1\].leed: unknown key; did you mean 'lead'\?"),
    "missing key": ({k: v for k, v in GOOD.items() if k != "rounds"}, "rounds: missing"),
    "no rounds": (changed(rounds=0), "rounds: input should be greater than or equal to 1, found 0"),
    "text for a number": (changed(rounds="many"), "rounds: .*valid integer.*found 'many'"),
    "no site": (changed(site=[]), "site: there is no site"),
    "doubled site": (changed("site", 2, name="a"), r"site\[2\].name: 'a' is that of site\[1\] as well"),
    "doubled dataset": (changed("site", 2, dataset=501), r"site\[2\].dataset: 501 is that of site\[1\] as well"),
    "site name no folder": (changed("site", 1, name="a/b"), r"site\[1\].name: 'a/b' cannot be a folder's name"),
    "name no folder": (changed(name="../x"), r"name: '\.\./x' cannot be a folder's name"),
    "doubled modality": (changed(modalities=["T1", "t1", "T1ce", "T2", "FLAIR"]), "'T1' and 't1' are the same name"),
    "unknown modality": (changed("site", 1, modalities=["CT"]), r"site\[1\].modalities: Unknown modality 'CT'"),
    "doubled modality of a site": (changed("site", 1, modalities=["T1ce", "t1c"]), "both mean 'T1ce'"),
    "no modality": (changed("site", 1, modalities=[]), r"site\[1\].modalities: empty"),
    "alias of nothing": (changed("aliases", gad="T1gad"), "Alias 'gad' points to 'T1gad'"),
    "lead without a modality": (
        changed("site", 0, modalities=["T1", "T1ce", "T2"]),
        r"site\[0\].modalities: a lead owns every modality; 'lead' lacks FLAIR",
    ),
    "no lead for anchors": (changed("site", 0, lead=False), "anchors come from a lead, but no site leads"),
    "no lead role for anchors": (changed("method", lead_role="none"), "lead_role is 'none'; set anchors = false"),
    "unknown variant": (changed("method", variant="fedprox"), "method.variant: input should be"),
    "share above one": (changed("method", lead_share=1.5), "method.lead_share: .*less than or equal to 1, found 1.5"),
    "bad patience": (changed("method", "personalization", patience=0), "patience is 0; expected at least 1"),
    "unknown personalization": (
        changed("method", "personalization", patiense=3),
        r"method.personalization: unknown key 'patiense'; did you mean 'patience'\?",
    ),
    "unknown training setting": (changed("training", optimiser="sgd"), r"training: unknown key 'optimiser'; did you"),
    "training setting of a wrong type": (
        changed("training", save_every="often"),
        "save_every is 'often'; expected int",
    ),
    "impossible training setting": (changed("training", loss="l2"), "Training setting loss is 'l2'"),
    "epochs": (changed("training", num_epochs=5), r"num_epochs cannot be set here: it is rounds \* epochs_per_round"),
    "absent outside the run": (
        changed("site", 1, absent_rounds=[0, 3, 101]),
        r"\[0, 101\] are no rounds; expected 1 to",
    ),
    "no such fold": (changed("run", fold=7), "run.fold: there is no fold 7"),
    "no such device": (changed("run", devices=["gpu0"]), "run.devices: 'gpu0' is no device"),
    "shared GPU": (changed("run", devices=["cuda:0"], workers=2), "2 workers would share 1 devices; set share_devices"),
    "too many updates asked for": (changed("run", minimum_sites=4), "4 updates cannot come from 3 sites"),
}


@pytest.mark.parametrize(("file", "message"), ONE_MISTAKE.values(), ids=ONE_MISTAKE)
def test_a_mistake_is_told_in_its_place(file, message):
    told = mistakes(file)
    assert told.startswith("file.toml has 1 mistake:\n")
    assert re.search(message, told), told


def test_every_mistake_of_a_file_is_told_at_once():
    file = changed("site", 1, name="lead", modalities=["CT"], extra=1)
    file["rounds"], file["training"] = -1, {"foo": 1, "save_every": 0}
    told = mistakes(file)
    for part in ("has 6 mistakes", "rounds:", "extra", "'CT'", "'lead' is that of", "'foo'", "save_every is 0"):
        assert part in told


def test_a_shared_gpu_may_be_asked_for_and_a_cpu_always_can_be():
    parse_federation(changed("run", devices=["cuda:0"], workers=2, share_devices=True), "file.toml")
    parse_federation(changed("run", devices=["cpu"], workers=8), "file.toml")


def test_a_coordinator_without_data_needs_no_lead():
    file = changed("method", anchors=False)
    file["site"][0]["lead"] = False
    assert parse_federation(file, "file.toml").leads == ()


def test_other_modalities_than_those_of_brats_need_no_more_than_their_names():
    file = {"name": "pet", "modalities": ["CT", "PET"], "aliases": {"ctac": "CT"}, "rounds": 1}
    file["site"] = [{"name": "a", "dataset": 1, "modalities": ["PET", "ctac"], "lead": True}]
    assert parse_federation(file, "x").vocabulary.resolve("ctac") == "CT"


def test_a_file_that_is_no_toml_and_one_that_is_not_there_are_named(tmp_path):
    (tmp_path / "f.toml").write_text("name = ")
    with pytest.raises(ConfigurationError, match=r"f.toml is no valid TOML: Invalid value"):
        load_federation(tmp_path / "f.toml")
    with pytest.raises(ConfigurationError, match=r"no federation file 'nothing'.*brats2018_paper.*demo"):
        load_federation("nothing")


def test_every_recipe_is_valid_and_found_by_its_name():
    assert recipes() == ["brats2018_paper", "brats2020_paper", "demo", "demo_quick"]
    for name in recipes():
        assert isinstance(load_federation(name), Federation)
    with pytest.raises(ConfigurationError, match="no recipe 'paper'; expected one of brats2018_paper"):
        recipe("paper")


@pytest.mark.parametrize("year", [2018, 2020])
def test_the_papers_recipes_have_its_sites_and_switches(year):
    federation = load_federation(f"brats{year}_paper")
    owned = {site.name: site.modalities and "+".join(site.modalities) for site in federation.site}
    assert owned == {
        "lead": None,
        **{"c1": "T1+T1ce+FLAIR", "c2": "T1+T2+FLAIR", "c3": "T1ce+FLAIR", "c4": "T1+T2", "c5": "T1ce", "c6": "T2"},
        **{"c7": None, "c8": None},
    }
    assert (federation.rounds, federation.method.calibration) == (1000, "replace")
    assert federation.personalization.warm_up_rounds == 30


def test_reading_a_federation_file_imports_neither_nnunet_nor_an_engine():
    script = (
        "import sys; from nnunet_fedmepd.config.loading import load_federation; load_federation('demo'); "
        "print([name for name in ('nnunetv2', 'flwr') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
