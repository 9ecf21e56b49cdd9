"""A site's training, with nnU-Net's own classes on tiny data."""

import json
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunet_fedmepd.errors import ConfigurationError, DatasetError, ModalityError, UnsupportedError
from nnunet_fedmepd.networks.fedmepd_net import present_modalities
from nnunet_fedmepd.nnunet_plugin.registration import register
from nnunet_fedmepd.nnunet_plugin.trainer import draw_imitated_absences, draw_modality_dropout
from nnunet_fedmepd.nnunet_plugin.transforms import KeepBlankChannels
from tests.nnunet_plugin.small_dataset import PLAIN_LABELS, SHAPE, make_dataset, prepare, write_case

SHORT = {
    "nnUNet_n_proc_DA": "0",
    "FEDMEPD_NUM_EPOCHS": "2",
    "FEDMEPD_NUM_ITERATIONS_PER_EPOCH": "2",
    "FEDMEPD_NUM_VAL_ITERATIONS_PER_EPOCH": "1",
    "FEDMEPD_SAVE_EVERY": "1",
}


@pytest.fixture(autouse=True)
def short_training(nnunet_paths, monkeypatch):
    register()
    for name, value in SHORT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def lead():
    """A prepared dataset with all four modalities; case1 lacks its T2 scan."""
    return prepare(make_dataset("Dataset001_lead", blank={"case1": ["T2"]}))


def train_epoch(trainer):
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    outputs = [trainer.train_step(next(trainer.dataloader_train)) for _ in range(trainer.num_iterations_per_epoch)]
    trainer.on_train_epoch_end(outputs)
    return float(torch.stack([output["loss"] for output in outputs]).mean())


def test_a_lead_trains_collects_anchors_saves_predicts_and_resumes(lead, tmp_path):
    trainer = lead.trainer()
    trainer.run_training()
    network = trainer.bare_network
    assert network.calibrations[0].valid[:, 0].all(), "every class has an anchor at every scale"
    assert not network.calibrations[0].in_use, "a lead keeps anchors but is not calibrated by them"
    folder = tmp_path / "new"
    folder.mkdir()
    write_case(folder, "whole", ["T1", "T1ce", "T2", "FLAIR"], seed=1)
    write_case(folder, "partly", ["T1", "T1ce", "T2", "FLAIR"], blank=["T1", "FLAIR"], seed=1)

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, ("all",))
    for case in ("whole", "partly"):
        files = [sorted(map(str, folder.glob(f"{case}_*")))]
        (segmentation,) = predictor.predict_from_files_sequential(files, None, False, True, None)
        assert segmentation.shape == SHAPE

    resumed = lead.trainer()
    resumed.load_checkpoint(trainer.output_folder + "/checkpoint_best.pth")
    assert resumed.current_epoch in {1, 2}
    assert resumed.anchor_collector.state.membership == trainer.anchor_collector.state.membership
    assert set(resumed.anchor_collector.state.membership) <= {"case0", "case2"}, "case1 is incomplete"


def test_the_region_map_of_every_scale_learns_down_to_the_coarsest(lead):
    trainer = lead.trainer()
    trainer.on_train_start()
    before = [fusion.region_head.weight.detach().clone() for fusion in trainer.bare_network.decoder.fusions]
    train_epoch(trainer)
    after = [fusion.region_head.weight for fusion in trainer.bare_network.decoder.fusions]
    assert [bool((old != new).any()) for old, new in zip(before, after, strict=True)] == [True] * 3


def test_a_resumed_training_ends_with_the_weights_of_an_undisturbed_one(lead):
    def trained(stop_after):
        np.random.seed(0)
        torch.manual_seed(0)
        trainer = lead.trainer()
        trainer.on_train_start()
        for epoch in range(2):
            if epoch == stop_after:
                trainer.current_epoch -= 1
                trainer.save_checkpoint(trainer.output_folder + "/checkpoint_latest.pth")
                trainer = lead.trainer()
                trainer.load_checkpoint(trainer.output_folder + "/checkpoint_latest.pth")
                trainer.on_train_start()
            np.random.seed(epoch)
            torch.manual_seed(epoch)
            trainer.dataloader_train, _ = trainer.get_dataloaders()
            train_epoch(trainer)
            trainer.current_epoch += 1
        return trainer.bare_network.state_dict()

    undisturbed, resumed = trained(stop_after=None), trained(stop_after=1)
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)


def test_an_interrupted_save_leaves_the_old_checkpoint(lead, monkeypatch):
    trainer = lead.trainer()
    trainer.initialize()
    file = trainer.output_folder + "/checkpoint_latest.pth"
    trainer.save_checkpoint(file)
    before = Path(file).read_bytes()

    def half_a_save(checkpoint, target):
        Path(target).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", half_a_save)
    with pytest.raises(OSError, match="no space"):
        trainer.save_checkpoint(file)
    assert Path(file).read_bytes() == before


def test_a_site_that_starts_from_a_leads_checkpoint_calibrates_by_its_anchors(lead):
    trainer = lead.trainer()
    trainer.on_train_start()
    train_epoch(trainer)
    file = trainer.output_folder + "/checkpoint_latest.pth"
    trainer.save_checkpoint(file)
    site = prepare(make_dataset("Dataset002_site", ["FLAIR"])).trainer()
    site.initialize()
    load_pretrained_weights(site.network, file)
    site.on_train_start()
    calibration = site.bare_network.calibrations[0]
    assert calibration.in_use
    assert torch.equal(calibration.anchors, trainer.bare_network.calibrations[0].anchors)
    train_epoch(site)
    assert calibration.out.weight.grad.any()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_never_touches_what_a_site_holds_of_modalities_it_does_not_own(optimizer, monkeypatch):
    monkeypatch.setenv("FEDMEPD_OPTIMIZER", optimizer)
    monkeypatch.setenv("FEDMEPD_WEIGHT_DECAY", "0.1")
    trainer = prepare(make_dataset("Dataset002_site", ["T2"])).trainer()
    trainer.on_train_start()
    weight = trainer.bare_network.decoder.fusions[0].shortcut.conv.weight
    before = weight.detach().clone().unflatten(1, (4, -1))
    train_epoch(trainer)
    after = weight.detach().unflatten(1, (4, -1))
    assert torch.equal(after[:, [0, 1, 3]], before[:, [0, 1, 3]])
    assert not torch.equal(after[:, 2], before[:, 2])


@pytest.mark.parametrize(
    ("labels", "description"),
    [
        ({**PLAIN_LABELS, "ignore": 4}, {}),
        ({"background": 0, "whole": [1, 2, 3], "core": [1, 3], "rim": [3]}, {"regions_class_order": [2, 1, 3]}),
        (
            {"background": 0, "whole": [1, 2, 3], "core": [1, 3], "rim": [3], "ignore": 4},
            {"regions_class_order": [2, 1, 3]},
        ),
    ],
    ids=["ignore label", "regions", "regions with ignore label"],
)
def test_other_kinds_of_labels_train_and_give_anchors(labels, description):
    dataset = prepare(make_dataset("Dataset001_x", labels=labels, **description))
    trainer = dataset.trainer()
    trainer.on_train_start()
    assert np.isfinite(train_epoch(trainer))
    assert trainer.bare_network.calibrations[0].valid.shape[0] == 4
    assert trainer.bare_network.calibrations[0].valid[1:, 0].all()
    trainer.network.eval()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(next(trainer.dataloader_val))["loss"])


def test_two_dimensions_train_too():
    trainer = prepare(make_dataset("Dataset001_x", ["T1", "FLAIR"]), ["2d"]).trainer("2d")
    trainer.on_train_start()
    assert np.isfinite(train_epoch(trainer))


REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [1, 3], "rim": [3]}


@pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])
def test_a_rare_voxel_that_is_missed_weighs_more_than_one_that_is_invented_less_so_the_longer_training_goes_on(
    regions, monkeypatch
):
    changes = {"labels": REGIONS, "regions_class_order": [2, 1, 3]} if regions else {}
    dataset = prepare(make_dataset("Dataset001_x", **changes))
    rim = torch.zeros(1, 1, 1, 1, 100)
    rim[..., 0] = 1
    truth = rim.expand(-1, 3, -1, -1, -1) if regions else 3 * rim[:, 0]
    right = 20 * rim.expand(-1, 3, -1, -1, -1) - 10
    right = right if regions else torch.cat([-right[:, :1], torch.full_like(right[:, :2], -10), right[:, :1]], 1)
    missed, invented = right.clone(), right.clone()
    missed[..., 0], invented[..., 1] = right[..., 1], right[..., 0]

    def ratios():
        trainer = dataset.trainer()
        trainer.num_epochs = 4
        trainer.initialize()
        cross_entropy = trainer.loss.loss.ce
        for trainer.current_epoch, trainer.missed_epochs in ((0, 0), (1, 0), (1, 2)):
            yield float(cross_entropy(missed, truth) / cross_entropy(invented, truth))

    for loss, expected in ((None, [99, 99**0.75, 99**0.25]), ("weighted", 3 * [99]), ("nnunet", 3 * [1])):
        if loss is not None:
            monkeypatch.setenv("FEDMEPD_LOSS", loss)
        assert list(ratios()) == pytest.approx(expected, rel=0.01), loss


def test_a_site_that_was_absent_trains_at_the_rate_of_the_federation_and_logs_it(lead):
    trainer = lead.trainer()
    trainer.num_epochs = 4
    trainer.initialize()
    trainer.missed_epochs = 2
    trainer.on_train_epoch_start()
    rate = trainer.initial_lr * 0.5**0.9
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(rate)
    assert trainer.logger.get_value("lrs", 0) == pytest.approx(rate)


def test_the_published_loss_trains():
    dataset = prepare(make_dataset("Dataset001_x", ["T1"]))
    plans = dataset.plans
    plans["fedmepd"]["training"] |= {"loss": "published", "optimizer": "adam"}
    trainer = dataset.trainer(fedmepd=plans["fedmepd"])
    trainer.on_train_start()
    assert np.isfinite(train_epoch(trainer))
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(2e-4)


def test_the_published_loss_refuses_overlapping_regions(monkeypatch):
    monkeypatch.setenv("FEDMEPD_LOSS", "published")
    dataset = prepare(make_dataset("Dataset001_x", labels=REGIONS, regions_class_order=[2, 1, 3]))
    with pytest.raises(ConfigurationError, match="published loss needs plain labels"):
        dataset.trainer().initialize()


def test_anchors_follow_the_length_of_the_run_unless_a_momentum_is_set(lead, monkeypatch):
    assert lead.trainer().anchor_collector.momentum == pytest.approx(0.999**500)
    monkeypatch.setenv("FEDMEPD_ANCHOR_MOMENTUM", "0.9")
    assert lead.trainer().anchor_collector.momentum == 0.9


def test_the_final_validation_can_be_left_out(lead, monkeypatch):
    monkeypatch.setenv("FEDMEPD_FINAL_VALIDATION", "0")
    trainer = lead.trainer()
    trainer.perform_actual_validation()
    assert "final_validation is off" in Path(trainer.log_file).read_text()


def test_plans_of_another_planner_are_refused(lead):
    with pytest.raises(ConfigurationError, match=r"no `fedmepd` section.*-pl FedMEPDPlanner"):
        lead.trainer(fedmepd={})


def test_plans_of_another_dataset_are_refused(lead):
    (lead.raw / "dataset.json").write_text(
        json.dumps({**lead.description, "channel_names": {"0": "T1", "1": "T2", "2": "T1ce", "3": "FLAIR"}})
    )
    with pytest.raises(ModalityError, match=re.escape("Dataset001_lead/dataset.json are in another order")):
        lead.trainer()


def test_a_cascade_is_refused_at_once(lead):
    configurations = lead.plans["configurations"]
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    with pytest.raises(UnsupportedError, match=r"second stage of a cascade.*Train 3d_fullres"):
        lead.trainer("3d_cascade_fullres", configurations=configurations)


def test_blank_channels_stay_blank_through_augmentation():
    class Noise(BasicTransform):
        def apply(self, data_dict, **params):
            return {**data_dict, "image": data_dict["image"] + 1}

    image = torch.zeros(2, 3, 3)
    image[1, 0, 0] = 5
    result = KeepBlankChannels(Noise())(image=image, segmentation=image)["image"]
    assert not result[0].any()
    assert result[1].all()


def test_modality_dropout_keeps_at_least_one_and_drops_at_least_one_of_the_samples_it_strikes():
    dropped = draw_modality_dropout(torch.ones(4000, 3, dtype=torch.bool), 0.5, np.random.default_rng(0))
    struck = dropped[dropped.any(1)]
    assert 1900 < len(struck) < 2100
    assert not struck.all(1).any()
    assert len(struck.unique(dim=0)) == 6


def test_modality_dropout_keeps_a_scan_that_was_made():
    present = torch.tensor([[True, False, True], [False, True, False]]).repeat(500, 1)
    dropped = draw_modality_dropout(present, 1, np.random.default_rng(0))
    assert ((present & ~dropped).sum(1) == 1).all()
    assert dropped[0::2, 0].any()
    assert dropped[0::2, 2].any()
    assert not dropped[1::2].any()


def test_modality_dropout_blanks_channels_in_training(lead, monkeypatch):
    monkeypatch.setenv("FEDMEPD_MODALITY_DROPOUT", "1")
    trainer = lead.trainer()
    trainer.on_train_start()
    seen = []
    trainer.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    train_epoch(trainer)
    assert all((~(images != 0).flatten(2).any(-1)).any(1).all() for images in seen)
    assert not trainer.bare_network.calibrations[0].valid.any(), "incomplete samples give no anchors"


def test_a_sample_loses_what_another_of_its_batch_lacks_but_never_all():
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])
    hidden = draw_imitated_absences(present, 1.0, np.random.default_rng(0))
    assert hidden.tolist() == [[True, False, True], [False, False, False], [False, False, False]]
    struck = [draw_imitated_absences(present, 0.5, np.random.default_rng(seed)).any() for seed in range(400)]
    assert 160 < sum(struck) < 240


@pytest.mark.parametrize(("blank", "hides"), [({"case1": ["T2"]}, True), ({}, False)])
def test_absences_are_imitated_where_scans_are_missing_only(monkeypatch, blank, hides):
    monkeypatch.setenv("FEDMEPD_ABSENCE_IMITATION", "1")
    trainer = prepare(make_dataset("Dataset001_lead", blank=blank)).trainer()
    trainer.on_train_start()
    seen = []
    trainer.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    before = trainer.random.bit_generator.state
    for _ in range(8):
        train_epoch(trainer)
    lacks = [(~(images != 0).flatten(2).any(-1)).tolist() for images in seen]
    assert any(rows[0][2] for rows in lacks) == hides
    assert all(rows[0] == rows[1] for rows in lacks), "both samples of a batch lack the same"
    assert (trainer.random.bit_generator.state != before) == hides


def test_a_model_refuses_an_image_with_other_channels(lead):
    trainer = lead.trainer()
    trainer.initialize()
    with pytest.raises(DatasetError, match="4 channels: T1, T1ce, T2, FLAIR"):
        trainer.network(torch.zeros(1, 3, 8, 8, 8))


@pytest.mark.parametrize("dropout", ["0", "1"])
@pytest.mark.parametrize("training_loss", ["annealed", "published"])
def test_a_training_step_reads_nothing_back_from_the_device(lead, monkeypatch, dropout, training_loss):
    """On the meta device, which has shapes but no values, whatever would make a GPU wait fails."""
    monkeypatch.setenv("FEDMEPD_MODALITY_DROPOUT", dropout)
    monkeypatch.setenv("FEDMEPD_LOSS", training_loss)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # meta knows none
    trainer = lead.trainer()
    trainer.on_train_start()
    batches = [next(trainer.dataloader_train) for _ in range(6)]
    trainer.device = torch.device("meta")
    trainer.network.to("meta")
    for batch in batches:
        assert trainer.train_step(batch)["loss"].is_meta
    present = [(batch["data"] != 0).flatten(2).any(-1) for batch in batches]
    assert not torch.stack(present).all(), "some samples lack a scan"


@pytest.mark.parametrize("dropout", ["0", "1"])
def test_the_loss_is_told_which_scans_a_sample_has(lead, monkeypatch, dropout):
    monkeypatch.setenv("FEDMEPD_MODALITY_DROPOUT", dropout)
    trainer = lead.trainer()
    trainer.on_train_start()
    loss, told, seen = trainer.loss, [], []
    trainer.loss = lambda output, target, present=None: told.append(present) or loss(output, target, present)
    trainer.network.register_forward_pre_hook(lambda network, images: seen.append(present_modalities(images[0])))
    for _ in range(6):
        trainer.train_step(next(trainer.dataloader_train))
    assert not torch.stack(seen).all(), "some samples lack a scan"
    for present, scans in zip(told, seen, strict=True):
        assert scans.all() if present is None else torch.equal(present, scans)
