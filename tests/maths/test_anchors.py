"""Anchors on numbers small enough to check by hand."""

import pytest
import torch

from nnunet_fedmepd.maths.anchors import (
    AnchorState,
    CaseMeans,
    average_by_case,
    class_masks,
    cluster,
    momentum_for,
    pool_by_class,
    update_anchors,
)


def observed(**vectors):
    """One scale, one channel; each case gives one number per class, None where the class was not seen."""
    rows = [[v if v is not None else torch.nan for v in values] for values in vectors.values()]
    means = torch.tensor(rows)[..., None]
    return CaseMeans(tuple(vectors), (means.nan_to_num(),), ~means[..., 0].isnan())


def test_plain_labels_become_one_mask_a_class_and_ignored_voxels_belong_to_none():
    target = torch.tensor([[[[0, 1, 2, 3]]]])
    masks = class_masks(target, 3, overlapping=False, ignore_label=3)
    assert masks[0, :, 0].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]


def test_overlapping_regions_get_an_explicit_background_and_ignored_voxels_belong_to_none():
    whole, core, ignored = [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]
    target = torch.tensor([[whole, core, ignored]])[:, :, None]
    masks = class_masks(target, 3, overlapping=True, ignore_label=9)
    assert masks[0, :, 0].tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]]


def test_pooling_sums_features_under_masks_averaged_down_to_their_resolution():
    features = torch.tensor([[[[10.0, 20.0]]]])
    masks = torch.tensor([[[[1.0, 1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 1.0]]]])
    sums, counts = pool_by_class(features, masks)
    assert sums[0, :, 0].tolist() == [20.0, 10.0]
    assert counts[0].tolist() == [1.5, 0.5]


def test_a_case_is_summed_over_its_patches_before_it_is_divided():
    sums = torch.tensor([[[1.0]], [[9.0]], [[5.0]]])
    counts = torch.tensor([[1.0], [3.0], [0.0]])
    means = average_by_case(["b", "b", "a"], [sums], [counts])
    assert means.cases == ("a", "b")
    assert means.means[0][1, 0, 0] == 2.5
    assert means.seen.tolist() == [[False], [True]]


def test_the_first_round_clusters_the_cases_of_each_class():
    state = update_anchors(None, observed(a=[0.0], b=[10.0], c=[1.0], d=[11.0]), 2, momentum=0.9)
    assert state.membership == {"a": (0,), "b": (1,), "c": (0,), "d": (1,)}
    assert state.anchors[0][0, :, 0].tolist() == [0.5, 10.5]
    assert state.valid.tolist() == [[True, True]]


def test_membership_is_decided_at_the_coarsest_scale_and_used_at_every_scale():
    fine = torch.tensor([[[1.0]], [[2.0]], [[3.0]]])
    coarse = torch.tensor([[[0.0]], [[9.0]], [[0.1]]])
    means = CaseMeans(("a", "b", "c"), (fine, coarse), torch.ones(3, 1, dtype=torch.bool))
    state = update_anchors(None, means, 2, momentum=0.9)
    assert state.anchors[0][0, :, 0].tolist() == [2.0, 2.0]


def test_fewer_cases_than_anchors_leave_the_other_anchors_invalid():
    state = update_anchors(None, observed(a=[3.0]), 4, momentum=0.9)
    assert state.valid.tolist() == [[True, False, False, False]]


def test_a_class_nobody_has_gives_no_anchor_and_no_zero_vector():
    state = update_anchors(None, observed(a=[3.0, None], b=[4.0, None]), 2, momentum=0.9)
    assert state.valid.tolist() == [[True, True], [False, False]]
    assert state.membership["a"] == (0, -1)


def test_later_rounds_move_an_anchor_by_the_share_that_momentum_leaves():
    first = update_anchors(None, observed(a=[0.0], b=[10.0]), 2, momentum=0.75)
    second = update_anchors(first, observed(a=[4.0], b=[10.0]), 2, momentum=0.75)
    assert second.anchors[0][0, :, 0].tolist() == [1.0, 10.0]
    assert first.anchors[0][0, :, 0].tolist() == [0.0, 10.0]


def test_an_anchor_whose_members_were_not_seen_stays():
    first = update_anchors(None, observed(a=[0.0], b=[10.0]), 2, momentum=0.5)
    second = update_anchors(first, observed(b=[20.0]), 2, momentum=0.5)
    assert second.anchors[0][0, :, 0].tolist() == [0.0, 15.0]


def test_a_case_first_seen_later_opens_a_free_anchor_or_joins_the_nearest():
    first = update_anchors(None, observed(a=[0.0]), 2, momentum=0.5)
    second = update_anchors(first, observed(b=[8.0]), 2, momentum=0.5)
    assert second.anchors[0][0, :, 0].tolist() == [0.0, 8.0]
    third = update_anchors(second, observed(c=[2.0]), 2, momentum=0.5)
    assert third.membership["c"] == (0,)
    assert third.anchors[0][0, :, 0].tolist() == [1.0, 8.0]


def test_a_class_first_seen_later_is_clustered_then():
    first = update_anchors(None, observed(a=[0.0, None]), 2, momentum=0.5)
    second = update_anchors(first, observed(a=[0.0, 5.0], b=[0.0, 7.0]), 2, momentum=0.5)
    assert second.anchors[0][1, :, 0].tolist() == [5.0, 7.0]


def test_identical_vectors_make_one_cluster():
    assert cluster(torch.ones(3, 2), 4, seed=0).tolist() == [0, 0, 0]


def test_the_half_life_is_the_same_share_of_every_run():
    assert momentum_for(1000) == pytest.approx(0.999)
    assert momentum_for(50) == pytest.approx(0.999**20)
    assert 0 < momentum_for(1) < 0.5


def test_an_update_leaves_the_old_state_alone():
    first = update_anchors(None, observed(a=[0.0]), 2, momentum=0.5)
    update_anchors(first, observed(b=[8.0]), 2, momentum=0.5)
    assert isinstance(first, AnchorState)
    assert list(first.membership) == ["a"]
    assert first.valid.tolist() == [[True, False]]
