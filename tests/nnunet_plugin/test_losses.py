"""The loss is what the paper and nnU-Net say it is."""

import pytest
import torch

from nnunet_fedmepd.networks.fedmepd_net import TrainingOutput
from nnunet_fedmepd.nnunet_plugin.losses import (
    FedMEPDLoss,
    FrequencyWeightedBCE,
    FrequencyWeightedCE,
    FrequencyWeightedDiceCE,
    region_scale_weights,
)


def mean_logit(logits, target):
    return logits.mean() + 0 * target.sum()


def output(auxiliary=None):
    maps = [torch.full((1, 2, 4, 4), 10.0), torch.full((1, 2, 2, 2), 100.0), torch.full((1, 2, 1, 1), 7.0)]
    return TrainingOutput(torch.ones(1, 2, 4, 4), maps, auxiliary, [])


TARGETS = [torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1)]


def test_region_maps_weigh_in_scale_by_scale():
    assert FedMEPDLoss(mean_logit, [0.5, 0.25, 2.0], 1.0)(output(), TARGETS) == 1 + 5 + 25 + 14


def test_the_auxiliary_term_is_taken_at_the_scale_that_the_auxiliary_decoder_segments():
    auxiliary = torch.zeros(1, 3, 2, 2, 2)
    seen = []

    def loss(logits, target):
        seen.append((logits.shape, target.shape))
        return logits.mean()

    FedMEPDLoss(loss, [0.0, 0.0, 0.0], 0.5)(output(auxiliary), TARGETS)
    assert seen[-1] == ((3, 2, 2, 2), (3, 1, 2, 2))


def test_the_auxiliary_term_is_the_mean_over_the_owned_modalities():
    auxiliary = torch.stack([torch.full((1, 2, 4, 4), 2.0), torch.full((1, 2, 4, 4), 4.0)], 1)
    assert FedMEPDLoss(mean_logit, [0.0, 0.0, 0.0], 0.5)(output(auxiliary), TARGETS) == 1 + 0.5 * 3


def test_every_modality_of_a_sample_is_compared_to_that_samples_target():
    auxiliary = torch.zeros(2, 3, 2, 4, 4)
    targets = [torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)]
    seen = []
    maps = [torch.zeros(2, 2, 4, 4)]
    FedMEPDLoss(lambda logits, target: seen.append(target) or logits.sum(), [0.0], 1.0)(
        TrainingOutput(torch.zeros(2, 2, 4, 4), maps, auxiliary, []), targets
    )
    assert seen[-1][:, 0, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]


def test_a_scan_that_was_not_made_does_not_count_in_the_auxiliary_term():
    auxiliary = torch.stack([torch.full((2, 2, 4, 4), 2.0), torch.full((2, 2, 4, 4), 5.0)], 1)
    targets = [torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)]
    present = torch.tensor([[True, False], [True, True]])
    seen = []

    def loss(logits, target):
        seen.append(target)
        return logits.mean()

    output = TrainingOutput(torch.zeros(2, 2, 4, 4), [torch.zeros(2, 2, 4, 4)], auxiliary, [])
    assert FedMEPDLoss(loss, [0.0], 1.0)(output, targets, present) == (2 + 2 + 5) / 3
    assert seen[-1][:, 0, 0, 0].tolist() == [1, 2, 2]


def test_the_region_map_of_every_scale_is_taught_and_the_weights_sum_to_one():
    assert region_scale_weights(3) == [4 / 7, 2 / 7, 1 / 7]
    assert region_scale_weights(1) == [1]


def test_the_published_loss_is_small_for_the_truth_and_large_for_its_opposite():
    target = torch.tensor([[[0, 1], [1, 1]]])[:, None]
    truth = torch.nn.functional.one_hot(target[:, 0], 2).movedim(-1, 1) * 20.0
    loss = FrequencyWeightedDiceCE()
    assert loss(truth, target) < 1e-3
    assert loss(-truth, target) > 1.9


def test_the_published_cross_entropy_weighs_a_class_by_one_minus_its_frequency():
    target = torch.tensor([[[0, 1, 1, 1]]])[:, None]
    logits = torch.zeros(1, 2, 1, 4)
    dice = 1 - ((2 * 0.5 / 3) + (2 * 1.5 / 5)) / 2
    expected = (0.75 * 1 + 0.25 * 3) / 4 * torch.log(torch.tensor(2.0)) + dice
    assert FrequencyWeightedDiceCE()(logits, target).item() == pytest.approx(expected.item(), abs=1e-4)


def test_ignored_voxels_change_nothing_in_the_published_loss():
    target = torch.tensor([[[0, 1, 9]]])[:, None]
    logits = torch.randn(1, 2, 1, 3)
    other = logits.clone()
    other[..., 2] += 5
    loss = FrequencyWeightedDiceCE(ignore_label=9)
    assert loss(logits, target) == loss(other, target)


def test_one_region_weighs_as_two_classes_do():
    target = torch.tensor([[[0.0, 1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0, 1.0]]])[:, None]
    logit = torch.randn(2, 1, 1, 4)
    of_classes = FrequencyWeightedCE()(torch.cat([torch.zeros_like(logit), logit], 1), target[:, 0])
    assert FrequencyWeightedBCE()(logit, target).item() == pytest.approx(of_classes.item(), abs=1e-6)


def test_regions_are_weighed_each_by_its_own_frequency():
    rare, frequent = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]), torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0])
    loss = FrequencyWeightedBCE("none")(torch.zeros(1, 2, 8), torch.stack([rare, frequent])[None])
    weights = loss / torch.log(torch.tensor(2.0))
    assert weights[0, 0].tolist() == pytest.approx([7 / 8] + 7 * [1 / 8])
    assert weights[0, 1].tolist() == pytest.approx(6 * [2 / 8] + 2 * [6 / 8])


@pytest.mark.parametrize("kind", [FrequencyWeightedCE, FrequencyWeightedBCE], ids=["labels", "regions"])
def test_where_nothing_is_to_be_found_weights_that_have_nearly_faded_still_count_what_is_invented(kind):
    background, logits = torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 8, 8)
    target = background[:, 0] if kind is FrequencyWeightedCE else background.expand(-1, 2, -1, -1)
    loss = kind(strength=lambda: 0.01)(logits, target)
    assert loss.item() == pytest.approx(torch.log(torch.tensor(2.0)).item(), rel=0.05)
