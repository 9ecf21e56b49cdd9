"""What dataset.json may say: mistakes in it are told before anything is made of it."""

from __future__ import annotations

import json
import re

import pytest

from nnunet_fedmepd.errors import ConfigurationError, DatasetError
from nnunet_fedmepd.modalities import ModalityVocabulary
from nnunet_fedmepd.nnunet_plugin.fingerprint import FedMEPDFingerprintExtractor
from nnunet_fedmepd.nnunet_plugin.planner import FedMEPDTinyPlanner
from nnunet_fedmepd.nnunet_plugin.raw_dataset import open_raw_dataset
from tests.nnunet_plugin.varied_sites import Site, write_site

pytestmark = pytest.mark.usefixtures("nnunet_paths")

VOCABULARY = ModalityVocabulary(("T1", "T2"))
SITE = Site("a", ("T1", "T2"), n_cases=1)
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


def opened(labels, **description):
    return open_raw_dataset(write_site(SITE, 1, labels, **description), VOCABULARY)


@pytest.mark.parametrize(
    ("labels", "order", "values"),
    [
        ({"background": 0, "core": 2, "edema": 1}, None, (0, 1, 2)),
        ({"background": 0, "core": 1, "ignore": 2}, None, (0, 1, 2)),
        (REGIONS, [1, 2], (0, 1, 2)),
        ({**REGIONS, "ignore": 3}, [1, 2], (0, 1, 2, 3)),
        ({"background": 0, "core": [1]}, None, (0, 1)),
    ],
    ids=["labels", "ignore label", "regions", "regions and ignore label", "a list of one is a label"],
)
def test_labels_and_regions_give_the_values_of_label_maps(labels, order, values):
    assert opened(labels, **({} if order is None else {"regions_class_order": order})).labels == values


NAMES, BACKGROUND = "does not give every label its number", "does not declare the background"
GAP, ORDER = "do not follow each other", "does not say which label each of its regions paints"


@pytest.mark.parametrize(
    ("labels", "order", "message"),
    [
        ({"0": "background", "1": "core"}, None, NAMES),
        ({"background": 0, "core": "1"}, None, NAMES),
        ({"background": 0, "core": 1.5}, None, NAMES),
        (["background", "core"], None, NAMES),
        ({"background": 0, "core": []}, None, NAMES),
        ({"core": 1, "edema": 2}, None, BACKGROUND),
        ({"background": 1, "core": 0}, None, BACKGROUND),
        ({"background": 0, "core": 1, "edema": 2, "enhancing": 4}, None, GAP),
        ({"background": 0, "whole": [1, 3], "core": [3]}, [1, 3], GAP),
        ({"background": 0, "core": 1, "ignore": 3}, None, GAP),
        ({"background": 0, "core": 1, "ignore": 1}, None, GAP),
        ({"background": 0, "core": 1, "ignore": [2]}, None, GAP),
        ({"background": 0}, None, GAP),
        (REGIONS, None, ORDER),
        (REGIONS, [1], ORDER),
        (REGIONS, [1, 5], ORDER),
    ],
)
def test_labels_that_nnunet_cannot_train_with_are_refused_with_the_file(labels, order, message, nnunet_paths):
    site = Site("a", ("T1", "T2"), n_cases=1)
    name = write_site(site, 1)
    file = nnunet_paths.raw / name / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "labels": labels, "regions_class_order": order}))
    with pytest.raises(DatasetError, match=rf"(?s){message}.*{re.escape(str(file))}.*expected: .*what to do: "):
        open_raw_dataset(name, VOCABULARY)
    with pytest.raises(DatasetError, match=message):
        FedMEPDFingerprintExtractor(name, 1).run()


@pytest.mark.parametrize("names", [{"T1": "0", "T2": "1"}, ["T1", "T2"]])
def test_channel_names_without_numbers_are_refused_with_an_example(names):
    name = write_site(SITE, 1, channel_names=names)
    with pytest.raises(ConfigurationError, match=r'Dataset001_a.dataset\.json has the `channel_names`.*"0": "T1ce"'):
        open_raw_dataset(name, VOCABULARY)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"canonical_modalites": ["T1", "T2", "FLAIR"]}, "'canonical_modalites'; did you mean 'canonical_modalities'?"),
        ({"lead": True}, "unknown keys: 'lead'. Expected some of canonical_modalities, modality_aliases"),
        ({"canonical_modalities": "T1"}, 'expected a list of names as canonical_modalities .* found "T1"'),
        ({"modality_aliases": ["T1"]}, "expected .* an object, other name -> canonical name, as modality_aliases"),
        (["T1"], "expected an object"),
    ],
)
def test_a_mistake_in_the_object_fedmepd_is_refused_and_no_site_planned_as_a_lead(section, message):
    name = write_site(SITE, 1, fedmepd=section)
    FedMEPDFingerprintExtractor(name, 1).run()
    with pytest.raises(ConfigurationError, match=rf"`fedmepd` in Dataset001_a/dataset\.json.*{message}"):
        FedMEPDTinyPlanner(name)
    with pytest.raises(ConfigurationError, match=message):
        open_raw_dataset(name, VOCABULARY)


def test_what_the_conversion_writes_there_is_known():
    section = {"canonical_modalities": ["T1", "T2"], "site": "a", "absent_scans": {"a0": ["T2"]}, "converted_from": "x"}
    name = write_site(SITE, 1, fedmepd={**section, "modality_aliases": {"native": "T1"}})
    assert open_raw_dataset(name, VOCABULARY).modalities == ("T1", "T2")
