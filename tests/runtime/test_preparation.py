"""What `fedmepd run` checks of plans, data and file before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.runtime.preparation import prepare
from tests.runtime.held_out_cases import dataset
from tests.runtime.small_federation import small_federation

PLANS = "FedMEPDTinyPlans.json"
ADVICE = "Run `fedmepd plan` with this file first."


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        prepare(small_federation(**changes))
    return str(error.value)


def edit(site: str, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a site's preprocessed dataset."""
    file = dataset(site).preprocessed / name
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def used(plans: dict[str, Any]) -> dict[str, Any]:
    return plans["configurations"]["3d_fullres"]


def split(site: str, content: str) -> None:
    (dataset(site).preprocessed / "splits_final.json").write_text(content)


def test_sites_that_were_planned_together_are_prepared(datasets):
    prepared = prepare(small_federation())
    assert [site.modalities for site in prepared.federation.site] == [
        ("T1", "T1ce", "T2", "FLAIR"),
        ("T1ce",),
        ("T2", "FLAIR"),
    ]
    assert prepared.folds["a"].train == ("case0", "case1", "case2")


def test_progress_and_log_go_by_the_settings_in_the_plans_where_the_file_is_silent(datasets):
    federation = small_federation()
    silent = federation.model_copy(update={"training": {"num_val_iterations_per_epoch": 1}})
    edit(federation.site[0].name, PLANS, lambda plans: plans["fedmepd"]["training"].update(num_iterations_per_epoch=7))
    assert prepare(silent).settings.num_iterations_per_epoch == 7
    assert prepare(federation).settings.num_iterations_per_epoch == federation.training["num_iterations_per_epoch"]


@pytest.mark.parametrize(
    "modalities",
    [("T1", "T1ce", "T2", "FLAIR", "PET"), ("T1ce", "T1", "T2", "FLAIR"), ("T1", "Gd", "T2", "FLAIR")],
    ids=["added", "in another order", "renamed"],
)
def test_plans_for_other_modalities_than_the_files_are_refused_at_every_site(datasets, modalities):
    federation = small_federation().model_copy(update={"modalities": modalities, "aliases": {}})
    with pytest.raises(ConfigurationError) as error:
        prepare(federation)
    for site in ("lead", "a", "b"):
        made_for = f"{dataset(site).preprocessed / PLANS} was made for the modalities ['T1', 'T1ce', 'T2', 'FLAIR']"
        assert f"site {site!r} (dataset {federation.site_named(site).dataset}): {made_for}" in str(error.value)
    assert f"has {list(modalities)}, in this order" in str(error.value)
    assert str(error.value).endswith(ADVICE)


def test_a_lead_that_lacks_a_modality_and_wrongly_stated_modalities_are_refused_together(datasets):
    told = refusal(sites={"a": {"lead": True}, "b": {"modalities": ["FLAIR", "T2"]}})
    assert "site 'a' (dataset 501): a lead owns every modality, but Dataset501_a has no T1, T2, FLAIR" in told
    assert "site 'b' (dataset 502): the federation file states the modalities ['FLAIR', 'T2'], but" in told
    assert "dataset.json are ['T2', 'FLAIR'], in this order" in told
    assert ADVICE not in told


def test_channels_that_were_changed_after_planning_are_refused(datasets):
    edit("b", "dataset.json", lambda content: content.update(channel_names={"0": "FLAIR", "1": "T2"}))
    assert "has the channels ['T2', 'FLAIR'], but" in refusal()


@pytest.mark.parametrize(
    ("site", "change", "place"),
    [
        ("b", lambda plans: used(plans).update(batch_size=7), r"batch_size: 2 -> 7"),
        ("b", lambda plans: used(plans).update(spacing=[2.0, 1.0, 1.0]), r"spacing\[0\]: 1.2 -> 2.0"),
        ("b", lambda plans: used(plans).update(normalization_schemes=["CTNormalization"] * 2), "channels.T2.normali"),
        (
            "b",
            lambda plans: used(plans)["normalization_schemes"].pop(),
            "channels.FLAIR.normalization_schemes: .* None",
        ),
        ("a", lambda plans: used(plans).update(use_mask_for_norm=[True]), "channels.T1ce.use_mask_for_norm: "),
        (
            "a",
            lambda plans: plans["foreground_intensity_properties_per_channel"]["0"].update(mean=7.0),
            "channels.T1ce.foreground_intensity_properties_per_channel.mean: ",
        ),
        ("a", lambda plans: plans.update(transpose_forward=[1, 0, 2]), r"transpose_forward\[0\]: 0 -> 1"),
        (
            "b",
            lambda plans: used(plans)["architecture"]["arch_kwargs"]["features_per_stage"].__setitem__(0, 4),
            r"architecture.arch_kwargs.features_per_stage\[0\]: 8 -> 4",
        ),
    ],
)
def test_whatever_differs_between_plans_that_were_made_together_is_refused_by_its_place(datasets, site, change, place):
    edit(site, PLANS, change)
    with pytest.raises(ConfigurationError, match=rf"site '{site}': .*{PLANS} was not planned together .*{place}"):
        prepare(small_federation())


def test_labels_that_differ_after_planning_are_refused(datasets):
    swapped = {"background": 0, "edema": 1, "core": 2, "enhancing": 3}
    edit("a", "dataset.json", lambda content: content.update(labels=swapped))
    assert '"edema": 1' in refusal()


def test_training_settings_may_be_a_sites_own_and_an_impossible_one_is_told_with_its_file(datasets):
    edit("b", PLANS, lambda plans: plans["fedmepd"]["training"].update(loss="nnunet"))
    prepare(small_federation())
    edit("b", PLANS, lambda plans: plans["fedmepd"]["training"].update(save_every=0))
    told = refusal()
    assert f"site 'b' (dataset 502): {dataset('b').preprocessed / PLANS}: " in told
    assert "save_every is 0; expected at least 1" in told
    assert ADVICE not in told


@pytest.mark.parametrize("name", [PLANS, "dataset.json"])
def test_a_file_that_was_cut_off_is_named_and_planning_makes_it_again(datasets, name):
    file = dataset("a").preprocessed / name
    file.write_text(file.read_text()[:50])
    told = refusal()
    assert f"site 'a' (dataset 501): {file} is no valid JSON" in told
    assert told.endswith(ADVICE)


@pytest.mark.parametrize(
    ("content", "fold", "message"),
    [
        ('[{"train": ["case0"], "val": ["case1"]}]', 3, "has no fold 3, only 0 to 0"),
        ('[{"train": ["case0"], "val": ["case9"]}]', 0, "is not usable"),
        ('[{"train": ["case0"]}]', 0, "cannot be read"),
        ('[{"train": ["ca', 0, "is no valid JSON"),
    ],
)
def test_for_a_fold_that_cannot_be_trained_planning_again_is_no_advice(datasets, content, fold, message):
    for site in ("lead", "a", "b"):
        split(site, content)
    told = refusal(run={"fold": fold})
    for site in ("lead", "a", "b"):
        assert str(dataset(site).preprocessed / "splits_final.json") in told
    assert message in told
    assert ADVICE not in told
