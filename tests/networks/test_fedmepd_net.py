"""What a site may rely on: its network is the federation's network without the modalities it does not own."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch

from nnunet_fedmepd.errors import ConfigurationError, DatasetError, ModalityError
from nnunet_fedmepd.networks.fedmepd_net import TrainingOutput, present_modalities
from tests.networks.small_network import CANONICAL, build_network, give_anchors

SUBSETS = [subset for n in range(1, 5) for subset in combinations(CANONICAL, n)]


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_every_subset_of_modalities_is_a_site_whose_output_is_that_of_the_full_network_with_the_rest_blank(subset):
    full = build_network().double().eval()
    give_anchors(full)
    site = build_network(subset).double().eval()
    site.load_state_dict({name: full.state_dict()[name] for name in site.state_dict()})
    images = torch.randn(2, 4, 8, 12, 8, dtype=torch.float64)
    for i, modality in enumerate(CANONICAL):
        if modality not in subset:
            images[:, i] = 0
    own = images[:, [CANONICAL.index(modality) for modality in subset]]
    torch.testing.assert_close(site(own), full(images), rtol=1e-10, atol=1e-10)


def test_the_order_of_the_channels_is_that_of_the_sites_own_list():
    forward, backward = build_network(["T1", "FLAIR"]).double(), build_network(["FLAIR", "T1"]).double()
    backward.load_state_dict(forward.state_dict())
    images = torch.randn(1, 2, 8, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(forward(images), backward(images.flip(1)), rtol=1e-10, atol=1e-10)


def test_a_site_builds_no_encoder_for_a_modality_it_does_not_own():
    names = [name for name, _ in build_network(["T1ce"]).named_parameters()]
    assert any(name.startswith("encoders.T1ce.") for name in names)
    assert not any(name.startswith(("encoders.T1.", "encoders.T2.", "encoders.FLAIR.")) for name in names)


def test_a_blank_channel_teaches_its_encoder_nothing():
    network = build_network(deep_supervision=True)
    images = torch.randn(2, 4, 8, 8, 8)
    images[:, 1] = 0
    output = network(images)
    loss = output.segmentation.square().sum() + sum(m.square().sum() for m in output.region_maps)
    (loss + output.auxiliary.square().sum()).backward()
    assert all(not p.grad.any() for p in network.encoders["T1ce"].parameters())
    assert all(p.grad.any() for name, p in network.encoders["T2"].named_parameters() if name.endswith("weight"))


def test_columns_of_absent_modalities_get_no_gradient():
    network = build_network(["T2"])
    network(torch.randn(1, 1, 8, 8, 8)).square().sum().backward()
    gradient = network.decoder.fusions[0].shortcut.conv.weight.grad.unflatten(1, (4, 4))
    assert gradient[:, 2].any()
    assert not gradient[:, [0, 1, 3]].any()


def test_presence_is_decided_case_by_case_and_an_empty_patch_counts_as_complete():
    images = torch.ones(3, 2, 4, 4)
    images[0, 1] = 0
    images[2] = 0
    assert present_modalities(images).tolist() == [[True, False], [True, True], [True, True]]


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("overlapping", [False, True], ids=["classes", "regions"])
def test_training_output_has_one_region_map_per_scale_and_one_segmentation_per_modality(dim, overlapping):
    network = build_network(["T1", "T2"], dim, num_classes=3, overlapping_regions=overlapping, deep_supervision=True)
    output = network(torch.randn(2, 2, *[8] * dim))
    assert isinstance(output, TrainingOutput)
    assert output[0] is output.segmentation
    assert output.segmentation.shape == (2, 3, *[8] * dim)
    assert [m.shape for m in output.region_maps] == [(2, 3, *[n] * dim) for n in (8, 4, 2)]
    assert output.auxiliary.shape == (2, 2, 3, *[8] * dim)
    assert network.calibrations[0].anchors.shape == (3 + overlapping, 2, 4)


def test_anisotropic_strides_as_nnunet_plans_them_for_thick_slices():
    network = build_network(
        ["T1ce"], strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]], kernel_sizes=[[1, 3, 3]] + [[3] * 3] * 2
    )
    assert network(torch.randn(1, 1, 4, 16, 16)).shape == (1, 4, 4, 16, 16)


def test_the_auxiliary_decoder_runs_in_training_only():
    network = build_network(deep_supervision=True).eval()
    assert network(torch.randn(1, 4, 8, 8, 8)).auxiliary is None


@pytest.mark.parametrize("mode", ["replace", "residual"])
def test_without_valid_anchors_the_network_is_to_the_bit_the_one_without_calibration(mode):
    network, bare = build_network(calibration=mode), build_network(calibration="off")
    bare.load_state_dict({name: network.state_dict()[name] for name in bare.state_dict()})
    images = torch.randn(1, 4, 8, 8, 8)
    assert torch.equal(network(images), bare(images))
    give_anchors(network)
    assert not torch.equal(network(images), bare(images))
    network.use_anchors(False)
    assert torch.equal(network(images), bare(images))


def test_scales_finer_than_the_calibration_scale_are_not_calibrated_but_keep_their_anchors():
    network, everywhere = build_network(calibration_scale=1), build_network()
    everywhere.load_state_dict(network.state_dict(), strict=False)
    for each in (network, everywhere):
        give_anchors(each)
    assert network.anchor_shapes() == everywhere.anchor_shapes()
    assert not any(name.startswith("calibrations.0.") for name in network.parts().calibration)
    everywhere.calibrations[0].set_anchors(torch.zeros(4, 2, 4), torch.zeros(4, 2, dtype=torch.bool), in_use=True)
    for mine, other in zip(list(network.calibrations)[1:], list(everywhere.calibrations)[1:], strict=True):
        other.load_state_dict(mine.state_dict())
    images = torch.randn(1, 4, 8, 8, 8)
    assert torch.equal(network(images), everywhere(images))
    assert network.compute_conv_feature_map_size([8, 8, 8]) < everywhere.compute_conv_feature_map_size([8, 8, 8])


def test_a_loaded_checkpoint_calibrates_by_the_anchors_it_holds():
    network, loaded = build_network(), build_network(seed=5)
    give_anchors(network)
    loaded.load_state_dict(network.state_dict())
    images = torch.randn(1, 4, 8, 8, 8)
    assert torch.equal(loaded(images), network(images))


def test_every_parameter_plays_exactly_one_role():
    network = build_network(["T1", "FLAIR"])
    parts = network.parts()
    assert list(parts.encoders) == ["T1", "FLAIR"]
    listed = [*parts.fusion_decoder, *parts.calibration, *parts.auxiliary_decoder]
    listed += [name for names in parts.encoders.values() for name in names]
    assert sorted(listed) == sorted(name for name, _ in network.named_parameters())


def test_filters_cover_the_fusion_decoder_exactly_once():
    network = build_network()
    groups = network.decoder_filters()
    members = [name for group in groups for name, _ in group.members]
    assert sorted(members) == sorted(network.parts().fusion_decoder)
    parameters = dict(network.named_parameters())
    assert all(parameters[name].shape[axis] == g.n_filters for g in groups for name, axis in g.members)


def test_a_transposed_convolution_has_its_filters_along_the_second_axis():
    group = next(g for g in build_network().decoder_filters() if g.name == "decoder.upsamplings.0")
    assert group.members == (("decoder.upsamplings.0.weight", 1), ("decoder.upsamplings.0.bias", 0))
    assert group.n_filters == 4


@pytest.mark.parametrize("subset", [("T1",), ("T2", "FLAIR")], ids="+".join)
def test_the_fusion_decoder_has_the_same_names_and_shapes_at_every_site(subset):
    def shapes(network):
        return {name: p.shape for name, p in network.named_parameters() if name.startswith("decoder.")}

    assert shapes(build_network(subset)) == shapes(build_network())


def test_state_keys_are_those_of_earlier_versions():
    stored = (Path(__file__).parent / "state_keys.txt").read_text().split()
    assert list(build_network(["T1ce", "FLAIR"]).state_dict()) == stored


def test_there_is_no_graph_break_with_or_without_anchors_in_training_or_prediction():
    # In a process of its own: the shape checks of the tests are no part of what users compile.
    script = Path(__file__).parent / "compile_without_graph_break.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4", "graphs", "compiled"]


def test_bfloat16_autocast_stays_close_to_float32():
    network = build_network().eval()
    give_anchors(network)
    images = torch.randn(1, 4, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        lower = network(images)
    torch.testing.assert_close(lower.float().softmax(1), network(images).softmax(1), rtol=0, atol=0.1)


def test_a_wrong_number_of_channels_is_refused_by_name():
    with pytest.raises(DatasetError, match=r"expected: 2 channels: T1, FLAIR\s+found: 1 channels"):
        build_network(["T1", "FLAIR"])(torch.randn(1, 1, 8, 8, 8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": ["T1", "T1"]}, r"\['T1', 'T1'\]; expected at least one, each once"),
        ({"modalities": ["PET"]}, r"\['PET'\].*out of the canonical"),
        ({"modalities": [], "input_channels": 0}, "expected at least one"),
        ({"input_channels": 3}, "name 4 modalities .* has 3 channels"),
    ],
)
def test_impossible_modalities_are_refused(changes, message):
    with pytest.raises(ModalityError, match=message):
        build_network(**changes)


def test_an_unknown_calibration_is_refused():
    modes = r"'sideways'; expected one of \['replace', 'residual', 'standardized', 'off'\]"
    with pytest.raises(ConfigurationError, match=modes):
        build_network(calibration="sideways")


def test_the_memory_estimate_grows_with_every_modality_and_shrinks_without_calibration():
    sizes = [build_network(CANONICAL[:n]).compute_conv_feature_map_size((32, 32, 32)) for n in (1, 2, 4)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert build_network(calibration="off").compute_conv_feature_map_size((32, 32, 32)) < sizes[2]


def test_with_a_shared_encoder_a_site_is_the_full_network_on_zero_filled_channels():
    full = build_network(shared_encoder=True).double().eval()
    site = build_network(["FLAIR", "T1"], shared_encoder=True).double().eval()
    site.load_state_dict(full.state_dict())
    own, filled = torch.randn(2, 2, 8, 8, 8, dtype=torch.float64), torch.zeros(2, 4, 8, 8, 8, dtype=torch.float64)
    filled[:, [CANONICAL.index("FLAIR"), CANONICAL.index("T1")]] = own
    torch.testing.assert_close(site(own), full(filled), rtol=1e-10, atol=1e-10)
    assert list(site.parts().encoders) == ["all"]


def test_with_a_shared_encoder_only_the_input_weights_of_absent_modalities_are_spared_decay():
    assert list(build_network(["T2"], shared_encoder=True).partly_owned_parameters()) == [
        "encoders.all.stages.0.0.conv.weight"
    ]
    assert list(build_network(shared_encoder=True).partly_owned_parameters()) == []


def test_the_auxiliary_decoder_may_segment_at_a_coarser_scale_and_costs_less_there():
    full, coarse = (build_network(deep_supervision=True, auxiliary_scale=scale) for scale in (0, 1))
    assert coarse(torch.randn(1, 4, 8, 8, 8)).auxiliary.shape == (1, 4, 4, 4, 4, 4)
    assert coarse.compute_conv_feature_map_size([8, 8, 8]) < full.compute_conv_feature_map_size([8, 8, 8])
    exchanged = [{name for name, _ in n.named_parameters() if "auxiliary" not in name} for n in (full, coarse)]
    assert exchanged[0] == exchanged[1]


@pytest.mark.parametrize("scale", [-1, 3])
@pytest.mark.parametrize("switch", ["auxiliary_scale", "calibration_scale"])
def test_a_scale_that_the_network_does_not_have_is_refused(switch, scale):
    with pytest.raises(ConfigurationError, match=f"{switch} is {scale}; expected 0 to 2"):
        build_network(**{switch: scale})
