"""A federation file is read whole: every mistake is told at once, in its place, with what to do."""

from __future__ import annotations

from copy import deepcopy

import pytest

from nnunet_fedmepd.config.federation import VARIANTS, Federation
from nnunet_fedmepd.config.loading import parse_federation
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


SHARED = (
    "run.workers: 2 workers would share GPUs of the devices {}; name a GPU for each, or set share_devices = true to "
    "allow it"
)


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


def test_what_is_not_said_has_the_published_default_or_what_fits_the_number_of_rounds():
    federation = parse_federation(GOOD, "file.toml")
    assert federation.method.lead_share == 0.3
    assert federation.personalization.patience == 5  # 10 in 1,000 rounds, here 100
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


def test_another_variant_of_a_file_keeps_all_that_is_no_switch_of_a_variant():
    file = changed("method", variant="fedmema", site_weights="cases", lead_share=0.5, calibration="replace")
    file["method"]["personalization"] = {"patience": 3}
    federation = parse_federation(file, "file.toml")
    fedmepd = federation.as_variant("fedmepd")
    assert (fedmepd.name, fedmepd.method.decoder, fedmepd.method.site_weights) == (
        "hospitals_fedmepd",
        "partial",
        "equal",
    )
    assert (fedmepd.method.lead_share, fedmepd.method.calibration) == (0.5, "replace")
    assert (fedmepd.personalization.patience, fedmepd.site) == (3, federation.site)


def test_a_variant_that_the_sites_cannot_run_is_refused():
    file = changed("method", variant="fedavg")
    file["site"][0]["lead"] = False
    with pytest.raises(ConfigurationError, match=r"variant fedmepd has 1 mistake:\n  method.anchors: .* no site leads"):
        parse_federation(file, "file.toml").as_variant("fedmepd")


def test_the_files_own_variant_keeps_the_switches_of_the_file():
    file = changed("method", anchors=False, decoder="personal")
    file["site"][0]["lead"] = False
    federation = parse_federation(file, "file.toml")
    own = federation.as_variant("fedmepd")
    assert (own.name, own.method) == ("hospitals_fedmepd", federation.method)
    assert federation.as_variant("fedavg").method.decoder == "shared"


def test_a_site_is_found_by_its_name():
    federation = parse_federation(GOOD, "file.toml")
    assert federation.site_named("b").dataset == "Dataset502_B"
    with pytest.raises(ConfigurationError, match="no site 'c'; expected one of lead, a, b"):
        federation.site_named("c")


def test_a_federation_read_back_from_its_dump_is_the_same():
    federation = parse_federation(changed("method", variant="fedavg"), "file.toml")
    assert Federation.model_validate(federation.model_dump(mode="json")) == federation


def test_devices_and_workers_can_be_replaced_and_are_checked_again():
    federation = parse_federation(GOOD, "file.toml")
    assert federation.on(["cpu"], 3).run.workers == 3
    assert federation.on(None, None) == federation
    with pytest.raises(ConfigurationError, match="2 workers would share GPUs"):
        federation.on(["cuda:0"], 2)
    with pytest.raises(ConfigurationError, match="'gpu0' is no device"):
        federation.on(["gpu0"], None)


# What is wrong -> the file, and the one line that says so.
ONE_MISTAKE = {
    "unknown key": (changed(round=5), "round: unknown key; did you mean 'rounds'?"),
    "unknown key of a site": (changed("site", 1, leed=True), "site[1].leed: unknown key; did you mean 'lead'?"),
    "key below a table that belongs above": (
        changed("site", 2, seed=3),
        "site[2].seed: unknown key; it belongs at the top of the file, above all tables",
    ),
    "key of another table": (changed("method", workers=2), "method.workers: unknown key; it belongs in [run]"),
    "setting of another table": (
        changed("method", patience=3),
        "method.patience: unknown key; it belongs in [method.personalization]",
    ),
    "key like no other": (changed("run", xyz=3), "run.xyz: unknown key"),
    "missing key": ({k: v for k, v in GOOD.items() if k != "rounds"}, "rounds: missing"),
    "missing key of a site": (
        {**GOOD, "site": [*GOOD["site"], {"name": "c", "modalities": ["T1"]}]},
        "site[3].dataset: missing",
    ),
    "no rounds": (changed(rounds=0), "rounds: expected a number greater than or equal to 1, found 0"),
    "text for a number": (changed(rounds="5"), "rounds: expected an integer, found '5'"),
    "a switch for a number": (changed(rounds=True), "rounds: expected an integer, found True"),
    "text for a switch": (changed("site", 1, lead="no"), "site[1].lead: expected true or false, found 'no'"),
    "text for a list": (changed("site", 1, modalities="T1"), "site[1].modalities: expected a list, found 'T1'"),
    "text for a table": (changed(method="fedavg"), "method: expected a table, found 'fedavg'"),
    "not a number": (
        changed("planning", gpu_memory_gb=float("nan")),
        "planning.gpu_memory_gb: expected a finite number, found nan",
    ),
    "one table for many": (
        {**GOOD, "site": {"name": "a"}},
        "site: expected tables, each below a line [[site]], found {'name': 'a'}",
    ),
    "no site": (changed(site=[]), "site: there is no site; expected at least one table [[site]]"),
    "doubled site": (
        changed("site", 2, name="a"),
        "site[2].name: 'a' is the same folder as 'a' of site[1]; expected another",
    ),
    "site doubled but for its case": (
        changed("site", 2, name="A"),
        "site[2].name: 'A' is the same folder as 'a' of site[1]; expected another",
    ),
    "doubled dataset": (
        changed("site", 2, dataset=501),
        "site[2].dataset: 501 is the same dataset as 501 of site[1]; expected another",
    ),
    "dataset doubled by number and name": (
        changed("site", 2, dataset="Dataset501_A"),
        "site[2].dataset: 'Dataset501_A' is the same dataset as 501 of site[1]; expected another",
    ),
    "impossible dataset": (
        changed("site", 2, dataset="BraTS"),
        "site[2].dataset: 'BraTS' is no nnU-Net dataset; expected its number or its full name, such as 501 or "
        "'Dataset501_Name'",
    ),
    "dataset of neither type": (
        changed("site", 2, dataset=50.1),
        "site[2].dataset: expected an integer or text, found 50.1",
    ),
    "site name no folder": (
        changed("site", 1, name="a/b"),
        "site[1].name: 'a/b' cannot be a folder's name; expected letters, digits, '_', '-' and '.'",
    ),
    "name no folder": (
        changed(name="../x"),
        "name: '../x' cannot be a folder's name; expected letters, digits, '_', '-' and '.'",
    ),
    "doubled modality": (
        changed(modalities=["T1", "t1", "T1ce", "T2", "FLAIR"]),
        "modalities: Canonical modalities 'T1' and 't1' are the same name.",
    ),
    "no canonical modality": (
        changed(modalities=[]),
        "modalities: A federation needs at least one canonical modality; found an empty list.",
    ),
    "unknown modality": (
        changed("site", 1, modalities=["CT"]),
        "site[1].modalities: unknown modality 'CT'; expected one of ['T1', 'T1ce', 'T2', 'FLAIR'], or another name for "
        "one under [aliases]",
    ),
    "doubled modality of a site": (
        changed("site", 1, modalities=["T1ce", "t1c"]),
        "site[1].modalities: 'T1ce' and 't1c' both mean 'T1ce'; expected every modality at most once",
    ),
    "no modality": (
        changed("site", 1, modalities=[]),
        "site[1].modalities: empty; expected at least one of ['T1', 'T1ce', 'T2', 'FLAIR']",
    ),
    "alias of nothing": (
        changed("aliases", gad="T1gad"),
        "aliases.gad: Alias 'gad' points to 'T1gad', which is not one of ['T1', 'T1ce', 'T2', 'FLAIR'].",
    ),
    "alias of two": (changed("aliases", x="T1", X="T2"), "aliases.X: Alias 'X' means both 'T1' and 'T2'."),
    "lead without a modality": (
        changed("site", 0, modalities=["T1", "T1ce", "T2"]),
        "site[0].modalities: a lead owns every modality; 'lead' lacks FLAIR",
    ),
    "no lead for anchors": (
        changed("site", 0, lead=False),
        "method.anchors: anchors come from a lead, but no site leads; set lead = true at a site with every modality, "
        "or anchors = false",
    ),
    "no lead role for anchors": (
        changed("method", lead_role="none"),
        "method.anchors: anchors come from leads, but lead_role is 'none'; set anchors = false",
    ),
    "anchors in a variant without lead role": (
        changed("method", variant="fedavg", anchors=True),
        "method.anchors: anchors come from leads, but lead_role is 'site'; set anchors = false",
    ),
    "unknown variant": (
        changed("method", variant="fedprox"),
        "method.variant: expected 'fedmepd', 'fedmema', 'fedavg' or 'local', found 'fedprox'",
    ),
    "share above one": (
        changed("method", lead_share=1.5),
        "method.lead_share: expected a number less than or equal to 1, found 1.5",
    ),
    "bad patience": (
        changed("method", "personalization", patience=0),
        "method.personalization.patience: Personalization: patience is 0; expected at least 1",
    ),
    "unknown personalization": (
        changed("method", "personalization", patiense=3),
        "method.personalization.patiense: unknown key; did you mean 'patience'?",
    ),
    "unknown training setting": (
        changed("training", optimiser="sgd"),
        "training.optimiser: unknown key; did you mean 'optimizer'?",
    ),
    "training setting of a wrong type": (
        changed("training", save_every="often"),
        "training.save_every: expected an integer, found 'often'",
    ),
    "impossible training setting": (
        changed("training", loss="l2"),
        "training.loss: Training setting loss is 'l2'; expected one of annealed, weighted, nnunet, published",
    ),
    "infinite training setting": (
        changed("training", initial_lr=float("inf")),
        "training.initial_lr: expected a finite number, found inf",
    ),
    "epochs": (
        changed("training", num_epochs=5),
        "training.num_epochs: cannot be set here: it is rounds * epochs_per_round",
    ),
    "absent outside the run": (
        changed("site", 1, absent_rounds=[0, 3, 101]),
        "site[1].absent_rounds: [0, 101] are no rounds; expected 1 to 100",
    ),
    "no such fold": (changed("run", fold=7), "run.fold: there is no fold 7; expected 'all' or 0 to 4"),
    "fold of a wrong word": (changed("run", fold="every"), "run.fold: expected 'all' or an integer, found 'every'"),
    "no such device": (
        changed("run", devices=["gpu0"]),
        "run.devices: 'gpu0' is no device; expected cpu, mps, cuda or cuda:NUMBER",
    ),
    "more workers than GPUs": (changed("run", devices=["cuda:0"], workers=2), SHARED.format("cuda:0")),
    "one GPU named twice": (changed("run", devices=["cuda", "cuda:0"], workers=2), SHARED.format("cuda, cuda:0")),
    "too many updates asked for": (
        changed("run", minimum_sites=4),
        "run.minimum_sites: 4 updates cannot come from 3 sites",
    ),
}


@pytest.mark.parametrize(("file", "line"), ONE_MISTAKE.values(), ids=ONE_MISTAKE)
def test_a_mistake_is_told_once_in_its_place(file, line):
    header, *lines = mistakes(file).splitlines()
    assert header.startswith("file.toml has 1 mistake")
    assert lines == [f"  {line}"]


def test_every_mistake_of_a_file_is_told_at_once():
    file = changed("site", 1, name="lead", modalities=["CT", "PET"], extra=1)
    file["rounds"], file["training"] = -1, {"foo": 1, "save_every": 0, "loss": "l2"}
    header, *lines = mistakes(file).splitlines()
    assert header == "file.toml has 8 mistakes (site[0] is the first site):"
    assert {line.split(":")[0].strip() for line in lines} == {
        *("rounds", "site[1].extra", "site[1].modalities", "site[1].name"),
        *("training.foo", "training.save_every", "training.loss"),
    }


def test_only_workers_on_a_gpu_share_it():
    parse_federation(changed("run", devices=["cuda:0"], workers=2, share_devices=True), "file.toml")
    parse_federation(changed("run", devices=["cuda:0", "cuda:1"], workers=2), "file.toml")
    parse_federation(changed("run", devices=["cuda:0", "cpu"], workers=2), "file.toml")
    parse_federation(changed("run", devices=["cpu"], workers=8), "file.toml")


def test_a_coordinator_without_data_needs_no_lead():
    file = changed("method", anchors=False)
    file["site"][0]["lead"] = False
    assert parse_federation(file, "file.toml").leads == ()


@pytest.mark.parametrize("switch", [{"encoder": "shared"}, {"lead_role": "site", "anchors": False}])
def test_a_partially_personal_decoder_goes_with_a_shared_encoder_and_without_a_leading_lead(switch):
    assert parse_federation(changed("method", **switch), "file.toml").method.decoder == "partial"


def test_other_modalities_than_those_of_brats_need_no_more_than_their_names():
    file = {"name": "pet", "modalities": ["CT", "PET"], "aliases": {"ctac": "CT"}, "rounds": 1}
    file["site"] = [{"name": "a", "dataset": 1, "modalities": ["PET", "ctac"], "lead": True}]
    vocabulary = parse_federation(file, "x").vocabulary
    assert vocabulary.resolve("ctac") == "CT"
    assert not vocabulary.knows("t1c")


def test_the_aliases_of_brats_hold_for_modalities_named_as_there():
    assert parse_federation(GOOD, "x").vocabulary.resolve("t1gd") == "T1ce"
