"""Sites that join over a network without planning together there: their plans are compared, by digests."""

from __future__ import annotations

import json

import pytest
import torch

from nnunet_fedmepd.deployment.joining import prepared_by
from nnunet_fedmepd.deployment.requests import Join, Joined, encode_request, federation_digest
from nnunet_fedmepd.deployment.site_answers import SiteAnswers
from nnunet_fedmepd.errors import ConfigurationError
from tests.deployment.small_kits import site_kits
from tests.runtime.held_out_cases import dataset
from tests.runtime.small_federation import small_federation

PLANS = "FedMEPDTinyPlans.json"


def join_all(datasets, folder) -> dict[str, Joined]:
    federation, paths = small_federation(), (datasets.raw, datasets.preprocessed, datasets.results)
    request = encode_request(Join(), federation_digest(federation))
    kits = site_kits(folder, federation, {path.name: path for path in paths})
    return {site: SiteAnswers(kit, torch.device("cpu")).answer(request) for site, kit in kits.items()}


def edit(site, change) -> None:
    file = dataset(site).preprocessed / PLANS
    plans = json.loads(file.read_text())
    change(plans, plans["configurations"]["3d_fullres"])
    file.write_text(json.dumps(plans))


def test_sites_that_were_planned_together_elsewhere_may_run(datasets, tmp_path):
    prepared = prepared_by(small_federation(), join_all(datasets, tmp_path))
    assert [site.modalities for site in prepared.federation.site][1:] == [("T1ce",), ("T2", "FLAIR")]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda plans, used: used.update(normalization_schemes=["CTNormalization"] * 2), "FLAIR, T2"),
        (lambda plans, used: plans["foreground_intensity_properties_per_channel"]["0"].update(mean=7.0), "T2"),
        (lambda plans, used: used.update(spacing=[2.0, 1.0, 1.0]), "spacing"),
        (lambda plans, used: used["architecture"]["arch_kwargs"].update(calibration="off"), "architecture"),
    ],
)
def test_a_site_with_other_plans_is_named_with_what_differs(datasets, tmp_path, change, part):
    edit("b", change)
    with pytest.raises(ConfigurationError, match=rf"not planned together:\n  site 'b' has other plans for {part}$"):
        prepared_by(small_federation(), join_all(datasets, tmp_path))


def test_training_settings_may_be_a_sites_own(datasets, tmp_path):
    edit("b", lambda plans, used: plans["fedmepd"]["training"].update(loss="nnunet"))
    prepared_by(small_federation(), join_all(datasets, tmp_path))


def test_a_site_whose_plans_are_of_other_modalities_has_none(datasets, tmp_path):
    edit("b", lambda plans, used: used["architecture"]["arch_kwargs"].update(modalities=["T1ce", "FLAIR"]))
    with pytest.raises(ConfigurationError, match="Not planned yet: b"):
        prepared_by(small_federation(), join_all(datasets, tmp_path))
