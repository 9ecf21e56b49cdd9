"""Pooled datasets of sites that are not all alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_fedmepd.nnunet_plugin.pooled_dataset import Donor, Pool, make_pooled_dataset
from tests.runtime.held_out_cases import dataset, hold_out_cases
from tests.runtime.small_federation import OWNED

DATA = "FedMEPDTinyPlans_3d_fullres"


@pytest.fixture
def donors(datasets) -> dict[str, Donor]:
    hold_out_cases()
    return {site: Donor(site, dataset(site).preprocessed, modalities) for site, modalities in OWNED.items()}


def pool(model_site: Donor, *others: Donor, fold: int | str = 0) -> Pool:
    return Pool(model_site.modalities, model_site, (model_site, *others), "FedMEPDTinyPlans", "3d_fullres", fold)


def test_a_case_without_any_of_the_modalities_is_left_out_also_of_the_folds(donors, tmp_path):
    blank_channel(donors["lead"], "case1", OWNED["lead"].index("T1ce"))
    make_pooled_dataset(pool(donors["a"], donors["lead"]), tmp_path / "Dataset900_pool")
    cases = sorted(nnUNetDatasetBlosc2(str(tmp_path / "Dataset900_pool" / DATA)).identifiers)
    assert cases == ["a__case0", "a__case1", "a__case2", "lead__case0"]
    (fold,) = json.loads((tmp_path / "Dataset900_pool" / "splits_final.json").read_text())
    assert sorted(fold["train"] + fold["val"]) == cases
    assert json.loads((tmp_path / "Dataset900_pool" / "dataset.json").read_text())["numTraining"] == 4


def test_channels_are_matched_by_modality_not_by_place(donors, tmp_path):
    turned = Donor("turned", donors["b"].folder, ("FLAIR", "T2"))  # as if its channels were in the other order
    make_pooled_dataset(pool(donors["b"], turned), tmp_path / "Dataset900_pool")
    pooled, own = (nnUNetDatasetBlosc2(str(f / DATA)) for f in (tmp_path / "Dataset900_pool", donors["b"].folder))
    assert np.array_equal(pooled.load_case("turned__case0")[0][:], own.load_case("case0")[0][:][::-1])


def test_it_is_made_again_only_when_something_changed(donors, tmp_path):
    target = tmp_path / "Dataset900_pool"
    make_pooled_dataset(pool(donors["a"]), target)
    (target / "mark").touch()
    make_pooled_dataset(pool(donors["a"]), target)
    assert (target / "mark").is_file()
    splits = donors["a"].folder / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["case0"], "val": ["case2"]}]))
    make_pooled_dataset(pool(donors["a"]), target)
    assert not (target / "mark").exists()
    assert json.loads((target / "splits_final.json").read_text()) == [{"train": ["a__case0"], "val": ["a__case2"]}]


def blank_channel(donor: Donor, case: str, channel: int) -> None:
    """Make a preprocessed scan one that was never acquired."""
    folder = donor.folder / DATA
    data, seg, _, properties = nnUNetDatasetBlosc2(str(folder)).load_case(case)
    data, seg = data[:], seg[:]
    data[channel] = 0
    for ending in (".b2nd", "_seg.b2nd", ".pkl"):
        (folder / f"{case}{ending}").unlink()
    shape = data.shape[1:]
    nnUNetDatasetBlosc2.save_case(data, seg, properties, str(folder / case), (1, *shape), (1, *shape))
