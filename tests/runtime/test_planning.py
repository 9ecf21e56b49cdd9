"""Planning together, from raw data on disk to a site that trains."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import pytest
import SimpleITK
import torch
from nnunetv2.paths import nnUNet_raw
from rich.console import Console

from nnunet_fedmepd.cli import main
from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.errors import ConfigurationError, DatasetError
from nnunet_fedmepd.nnunet_plugin.fingerprint import FedMEPDFingerprintExtractor
from nnunet_fedmepd.nnunet_plugin.planner import FedMEPDTinyPlanner
from nnunet_fedmepd.nnunet_plugin.pooled_dataset import Donor, Pool, make_pooled_dataset
from nnunet_fedmepd.nnunet_plugin.trainer import FedMEPDTrainer
from nnunet_fedmepd.runtime.planning import case_workers, plan_together
from nnunet_fedmepd.runtime.preparation import prepare
from tests.nnunet_plugin.varied_sites import LABELS, Site, preprocessed_json, write_pooled, write_site

pytestmark = pytest.mark.usefixtures("nnunet_paths")

CANONICAL = ("T1", "T1ce", "T2", "FLAIR")
REGIONS = {"background": 0, "whole": [1, 2], "core": [1]}
PLANS = "FedMEPDTinyPlans.json"
LEAD = Site("lead", CANONICAL, (12, 16, 14), n_cases=3)
# Spacings in powers of two, which all image formats keep to the bit.
FEDERATIONS = {
    "other shapes, orders and endings": (
        LEAD,
        Site("a", ("FLAIR", "T1ce"), (18, 12, 20), (1.0, 0.875, 1.125), 2, ".nrrd"),
        Site("b", ("T2",), (14, 24, 22), (1.5, 0.75, 0.875), 1),
    ),
    "thick slices at most sites": (
        Site("lead", CANONICAL, (6, 30, 32), (6.0, 0.75, 0.875), 1),
        Site("a", ("T2", "T1"), (7, 26, 28), (5.0, 0.875, 0.875), 1),
    ),
}


def federation(sites, **tables):
    """A federation of these sites, led by `lead`; `tables` are merged into the sites of these names."""
    return Federation.model_validate(
        {
            "name": "planned",
            "modalities": CANONICAL,
            "rounds": 2,
            "site": [
                {"name": s.name, "dataset": 600 + i, "lead": s.name == "lead", **tables.get(s.name, {})}
                for i, s in enumerate(sites)
            ],
            "method": {"anchors": any(site.name == "lead" for site in sites)},
            "planning": {"planner": "FedMEPDTinyPlanner", "gpu_memory_gb": 0.02},
        }
    )


def write_sites(sites, labels=LABELS, **description):
    return [write_site(site, 600 + i, labels, **description) for i, site in enumerate(sites)]


def planned(made, n_processes=1):
    """Plan and return what was printed."""
    printed = io.StringIO()
    plan_together(made, Console(file=printed, width=200), n_processes)
    return printed.getvalue()


def stock_plans(sites, labels, **description):
    """The plan of one dataset that holds all cases of all sites, made by the stock commands."""
    name = write_pooled(sites, CANONICAL, labels, **description)
    FedMEPDFingerprintExtractor(name, 1).run()
    FedMEPDTinyPlanner(name, gpu_memory_target_in_gb=0.02).plan_experiment()
    return preprocessed_json(name, PLANS)


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("sites", FEDERATIONS.values(), ids=FEDERATIONS.keys())
def test_every_site_gets_the_plan_of_one_dataset_with_all_cases(sites, labels):
    order = {"regions_class_order": [2, 1]} if labels is REGIONS else {}
    datasets = write_sites(sites, labels, **order)
    planned(federation(sites))
    expected = stock_plans(sites, labels, **order)
    for dataset, site in zip(datasets, sites, strict=True):
        own, pooled = preprocessed_json(dataset, PLANS), json.loads(json.dumps(expected))
        for configuration in pooled["configurations"].values():
            for key in ("normalization_schemes", "use_mask_for_norm"):
                by_modality = dict(zip(CANONICAL, configuration[key], strict=True))
                configuration[key] = [by_modality[m] for m in site.channels]
            configuration["architecture"]["arch_kwargs"]["modalities"] = list(site.channels)
        intensities = "foreground_intensity_properties_per_channel"
        for channel, modality in enumerate(site.channels):
            found, all_cases = own[intensities][str(channel)], expected[intensities][str(CANONICAL.index(modality))]
            # sampled voxels, which depend on the order of the channels
            assert found["mean"] == pytest.approx(all_cases["mean"], rel=0.01)
        assert len(own[intensities]) == len(site.channels)
        spacing = "original_median_spacing_after_transp"
        assert own[spacing] == pytest.approx(pooled[spacing])
        assert own["image_reader_writer"] == "SimpleITKIO"
        leave_out = (intensities, spacing, "dataset_name")
        assert own["dataset_name"] == dataset
        assert {k: v for k, v in own.items() if k not in leave_out} == {
            k: v for k, v in pooled.items() if k not in leave_out
        }


def test_planning_again_changes_nothing_and_says_so():
    datasets = write_sites((LEAD,))
    first = planned(federation((LEAD,)))
    plans = Path(str(nnUNet_raw)).parent / "nnUNet_preprocessed" / datasets[0] / PLANS
    before = plans.stat().st_mtime_ns
    again = planned(federation((LEAD,)))
    assert "site lead: new plans, 3 cases preprocessed" in first
    assert "Nothing changed" not in first
    assert "site lead: unchanged" in again
    assert "Nothing changed since the federation was planned." in again
    assert plans.stat().st_mtime_ns == before


def test_a_training_setting_edited_at_one_site_survives_planning_again_and_stays_there():
    sites = (LEAD, Site("b", ("T2",), n_cases=1))
    datasets = write_sites(sites)
    planned(federation(sites))
    edited = Path(str(nnUNet_raw)).parent / "nnUNet_preprocessed" / datasets[1] / PLANS
    before = json.loads(edited.read_text())
    before["fedmepd"]["training"]["modality_dropout"] = 0.5
    edited.write_text(json.dumps(before, indent=4))
    assert "Nothing changed" in planned(federation(sites))
    assert preprocessed_json(datasets[1], PLANS) == before
    assert preprocessed_json(datasets[0], PLANS)["fedmepd"]["training"]["modality_dropout"] == 0.0


@pytest.mark.parametrize(
    ("text", "message"),
    [("{,", "is not valid JSON"), ('{"fedmepd": {"training": {"seed": "1"}}}', "seed: expected an integer, found '1'")],
)
def test_plans_that_were_damaged_by_hand_are_named_and_not_replaced(text, message):
    datasets = write_sites((LEAD,))
    planned(federation((LEAD,)))
    plans = Path(str(nnUNet_raw)).parent / "nnUNet_preprocessed" / datasets[0] / PLANS
    plans.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"(?s)site 'lead': .*{message}"):
        planned(federation((LEAD,)))
    assert plans.read_text() == text


@pytest.mark.parametrize(
    ("planning", "message"),
    [
        ({"planner": "FedMEPDTinyPlaner"}, "'FedMEPDTinyPlaner' is unknown.*did you mean 'FedMEPDTinyPlanner'"),
        (
            {"configuration": "3d_cascade_fullres"},
            "plans no configuration '3d_cascade_fullres'; expected one of 2d, 3d_f",
        ),
    ],
)
def test_a_planner_or_configuration_that_there_is_not_is_told_before_any_image_is_read(planning, message, nnunet_paths):
    write_sites((LEAD,))
    made = federation((LEAD,))
    asked = made.model_copy(update={"planning": made.planning.model_copy(update=planning)})
    with pytest.raises(ConfigurationError, match=message):
        planned(asked)
    assert list(nnunet_paths.preprocessed.iterdir()) == []


def test_a_case_more_at_one_site_is_planned_for_all():
    sites = (LEAD, Site("b", ("T2",), n_cases=1))
    write_sites(sites)
    planned(federation(sites))
    folder = Path(str(nnUNet_raw)) / "Dataset601_b"
    for part, end in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (folder / part / f"b7{end}").write_bytes((folder / part / f"b0{end}").read_bytes())
    description = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**description, "numTraining": 2}))
    printed = planned(federation(sites))
    assert "training cases: 2" in printed
    assert "2 cases preprocessed" in printed.split("site b:")[1]


def test_what_leaves_every_site_is_printed():
    sites = (LEAD, Site("b", ("T2",), n_cases=1))
    write_sites(sites)
    printed = planned(federation(sites))
    for site in ("lead", "b"):
        for when in ("before planning", "in phase 1", "in phase 2"):
            assert f"what leaves site {site} {when}:" in printed
    assert "  modalities: T2\n" in printed
    assert "  training cases: 1\n" in printed
    assert "  spacing in mm, axis 0: 1 (x1)\n" in printed
    assert "  T2: 4096 counts of intensities, 20000 foreground voxels in all\n" in printed


def test_a_jointly_planned_site_is_ready_to_run_and_trains_with_the_stock_trainer(monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    sites = FEDERATIONS["other shapes, orders and endings"]
    datasets = write_sites(sites)
    planned(federation(sites))
    assert dict(prepare(federation(sites)).sites)["a"].dataset == datasets[1]
    plans = {**preprocessed_json(datasets[1], PLANS), "continue_training": False}
    trainer = FedMEPDTrainer(
        plans, "3d_fullres", "all", preprocessed_json(datasets[1], "dataset.json"), torch.device("cpu")
    )
    trainer.initialize()
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    result = trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_end()
    assert trainer.network.modalities == ("FLAIR", "T1ce")
    assert float(result["loss"]) < float("inf")


def test_of_jointly_planned_sites_cases_are_pooled_and_nothing_else(nnunet_paths, tmp_path):
    site = Site("b", ("T2",), n_cases=1)
    folders = [nnunet_paths.preprocessed / name for name in write_sites((LEAD, site))]
    planned(federation((LEAD, site)))
    lead, own = (Donor(s.name, folder, s.channels) for s, folder in zip((LEAD, site), folders, strict=True))
    pool = Pool(own.modalities, own, (lead, own), "FedMEPDTinyPlans", "3d_fullres", "all")
    make_pooled_dataset(pool, tmp_path / "Dataset900_pool")
    data = tmp_path / "Dataset900_pool" / "FedMEPDTinyPlans_3d_fullres"
    assert {file.name for file in data.iterdir()} == {
        f"{case}{ending}"
        for case in ("b__b0", *(f"lead__lead{i}" for i in range(3)))
        for ending in (".b2nd", "_seg.b2nd", ".pkl")
    }


def test_cases_are_preprocessed_alike_in_several_processes():
    datasets = write_sites((LEAD,))
    planned(federation((LEAD,)))
    data = Path(str(nnUNet_raw)).parent / "nnUNet_preprocessed" / datasets[0] / "FedMEPDTinyPlans_3d_fullres"
    alone = {file.name: file.read_bytes() for file in data.glob("*.pkl")}
    shutil.rmtree(data)
    assert "3 cases preprocessed" in planned(federation((LEAD,)), n_processes=2)
    assert {file.name: file.read_bytes() for file in data.glob("*.pkl")} == alone


def test_mistakes_at_all_sites_are_listed_before_work_starts(nnunet_paths):
    sites = (LEAD, Site("b", ("T2",)), Site("c", ("T1",)), Site("d", ("FLAIR",)), Site("e", ("T1ce",)))
    write_sites(sites)
    (nnunet_paths.raw / "Dataset600_lead" / "labelsTr" / "lead1.nii.gz").unlink()
    stated = {"b": {"modalities": ["t2_flair"]}, "c": {"dataset": 777}, "e": {"lead": True}}
    with pytest.raises(ConfigurationError) as refused:
        planned(federation(sites, **stated))
    message = str(refused.value)
    assert "site 'lead': A file of a training case is missing\n    case: lead1" in message
    assert "site 'b': the federation file states the modalities ['FLAIR'], but the channels" in message
    assert "site 'c': Could not find a dataset with the ID 777" in message
    assert "site 'e': a lead owns every modality, but Dataset604_e has no T1, T2, FLAIR" in message
    assert list(nnunet_paths.preprocessed.iterdir()) == []


def test_a_worker_that_dies_is_told_with_a_remedy():
    with (
        pytest.raises(DatasetError, match=r"(?s)ended from outside.*use fewer processes"),
        case_workers(2) as map_cases,
    ):
        list(map_cases(os._exit, [1]))


def test_the_command_plans_a_federation_file(tmp_path, capsys):
    write_sites((LEAD,))
    file = tmp_path / "federation.toml"
    file.write_text(
        'name = "planned"\nmodalities = ["T1", "T1ce", "T2", "FLAIR"]\nrounds = 2\n'
        '[[site]]\nname = "lead"\ndataset = 600\nlead = true\n'
        '[planning]\nplanner = "FedMEPDTinyPlanner"\ngpu_memory_gb = 0.02\n'
    )
    assert main(["plan", str(file), "-np", "1"]) == 0
    assert "All 1 sites are planned and preprocessed." in capsys.readouterr().out
    assert preprocessed_json("Dataset600_lead", PLANS)["dataset_name"] == "Dataset600_lead"


def test_labels_that_differ_between_sites_are_refused(nnunet_paths):
    sites = (LEAD, Site("b", ("T2",)))
    write_sites((LEAD,))
    write_site(sites[1], 601, {"background": 0, "edema": 1, "core": 2})
    with pytest.raises(ConfigurationError, match=r"site 'b' has other labels than site 'lead': expected .*\"core\": 1"):
        planned(federation(sites))


def test_a_modality_that_nobody_owns_is_refused():
    sites = (Site("b", ("T2",)),)
    write_sites(sites)
    with pytest.raises(ConfigurationError, match="no site has modality 'T1'; remove it"):
        planned(federation(sites))


def test_images_that_cannot_be_read_are_named_for_all_sites(nnunet_paths):
    sites = (LEAD, Site("b", ("T2",)))
    for dataset in write_sites(sites):
        image = nnunet_paths.raw / dataset / "labelsTr" / f"{dataset.split('_')[1]}1.nii.gz"
        SimpleITK.WriteImage(SimpleITK.Image(3, 3, 3, SimpleITK.sitkUInt8), str(image))
    with pytest.raises(ConfigurationError, match=r"(?s)site 'lead': .*case: lead1.*site 'b': .*case: b1"):
        planned(federation(sites))
