"""FedMEPDNet: the whole network of one site, built from nnU-Net's plans (Liu et al. 2025, section 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nnunet_fedmepd.errors import ConfigurationError, DatasetError, ModalityError
from nnunet_fedmepd.maths.parameters import FilterGroup
from nnunet_fedmepd.networks.auxiliary import AuxiliaryDecoder
from nnunet_fedmepd.networks.blocks import BlockSettings, Stages, filter_groups
from nnunet_fedmepd.networks.calibration import CALIBRATION_MODES, AnchorCalibration
from nnunet_fedmepd.networks.decoder import FusionDecoder
from nnunet_fedmepd.networks.encoders import ModalityEncoder

# Name of the encoder that stands in place of one per modality, where all channels share one.
SHARED_ENCODER = "all"


class TrainingOutput(NamedTuple):
    """What the loss and the anchors need; lists run from high to low resolution."""

    segmentation: Tensor  # (B, H, *space) logits
    region_maps: list[Tensor]  # per scale (B, H, *space) logits
    auxiliary: Tensor | None  # (B, M, H, *space of its scale) logits; None outside training
    fused: list[Tensor]  # per scale (B, C, *space), detached


@dataclass(frozen=True)
class NetworkParts:
    """The names of a network's parameters, by the role they play in the federation.

    Attributes:
        encoders: modality -> its encoder's parameters; exchanged with the owners of the modality.
        fusion_decoder: the decoder's parameters; exchanged filter by filter.
        calibration: attention layers; never leave the site.
        auxiliary_decoder: used in training only; never leaves the site.
    """

    encoders: dict[str, tuple[str, ...]]
    fusion_decoder: tuple[str, ...]
    calibration: tuple[str, ...]
    auxiliary_decoder: tuple[str, ...]


class FedMEPDNet(nn.Module):
    """Modality-specific encoders, region-aware fusion decoder, anchor calibration, auxiliary decoder.

    Keyword arguments up to `nonlin_kwargs` are those of nnU-Net's `arch_kwargs` for a PlainConvUNet, in 2D or 3D.

    Args:
        input_channels: image channels; must equal the number of `modalities`.
        num_classes: segmentation heads.
        modalities: owned modalities, in the order of the image channels.
        canonical_modalities: all modalities of the federation; fixes the decoder's shape at every site.
        overlapping_regions: heads are overlapping regions (nnU-Net's region-based training).
        n_anchors_per_class: K anchors per class and scale.
        calibration: `replace` (published) | `residual` | `off`.
        calibration_heads: attention heads (published: 8).
        calibration_head_width: width of a head; None: that of the features (published).
        calibration_dropout: on attention weights in training (published: 0.1).
        calibration_scale: the finest scale that is calibrated; 0 is full resolution (published). Anchors of all scales
            are kept.
        shared_encoder: one encoder over all canonical channels, those of absent modalities filled with zeros, instead
            of one per modality: what FedAvg needs, and an ablation (Liu et al. 2025, section 4).
        auxiliary_scale: at which the auxiliary decoder segments; 0 is full resolution (published); the planner says 1.
        deep_supervision: return a `TrainingOutput` instead of the segmentation logits.

    A channel that is zero everywhere in a case is an absent modality of that case: it contributes zero features.

    Raises:
        ModalityError: `modalities` are doubled, none, not canonical, or not as many as `input_channels`.
        ConfigurationError: an unknown calibration mode, or a scale that the network does not have.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        n_stages: int,
        features_per_stage: Sequence[int] | int,
        conv_op: type[_ConvNd],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_conv_per_stage: Sequence[int] | int,
        n_conv_per_stage_decoder: Sequence[int] | int,
        conv_bias: bool = False,
        norm_op: type[nn.Module] | None = None,
        norm_op_kwargs: dict[str, Any] | None = None,
        dropout_op: type[nn.Module] | None = None,
        dropout_op_kwargs: dict[str, Any] | None = None,
        nonlin: type[nn.Module] | None = None,
        nonlin_kwargs: dict[str, Any] | None = None,
        modalities: Sequence[str] = (),
        canonical_modalities: Sequence[str] = (),
        overlapping_regions: bool = False,
        n_anchors_per_class: int = 4,
        calibration: str = "residual",
        calibration_heads: int = 2,
        calibration_head_width: int | None = None,
        calibration_dropout: float = 0.0,
        calibration_scale: int = 0,
        shared_encoder: bool = False,
        auxiliary_scale: int = 0,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        _check_modalities(modalities, canonical_modalities, input_channels)
        if calibration not in CALIBRATION_MODES:
            raise ConfigurationError(f"calibration is {calibration!r}; expected one of {list(CALIBRATION_MODES)}.")
        if not 0 <= calibration_scale < n_stages:
            raise ConfigurationError(f"calibration_scale is {calibration_scale}; expected 0 to {n_stages - 1}.")
        self.modalities, self.canonical_modalities = tuple(modalities), tuple(canonical_modalities)
        settings = BlockSettings(
            conv_op,
            conv_bias,
            norm_op,
            norm_op_kwargs or {},
            dropout_op,
            dropout_op_kwargs or {},
            nonlin,
            nonlin_kwargs or {},
        )
        stages = Stages(_per_stage(features_per_stage, n_stages), kernel_sizes, strides)
        self.strides = [list(stride) for stride in strides]
        self._widths, self._n_convs = stages.features, _per_stage(n_conv_per_stage, n_stages)
        self.shared_encoder = shared_encoder
        n_canonical, self._owned = len(canonical_modalities), [canonical_modalities.index(m) for m in modalities]
        encoders = {SHARED_ENCODER: n_canonical} if shared_encoder else dict.fromkeys(self.modalities, 1)
        self.encoders = nn.ModuleDict(
            {name: ModalityEncoder(settings, stages, self._n_convs, n_images) for name, n_images in encoders.items()}
        )
        self.decoder = FusionDecoder(
            settings,
            stages,
            _per_stage(n_conv_per_stage_decoder, n_stages - 1),
            [0] if shared_encoder else self._owned,
            1 if shared_encoder else n_canonical,
            num_classes,
            overlapping_regions,
        )
        self.decoder.deep_supervision = deep_supervision
        n_regions = num_classes + overlapping_regions
        self.calibrations = nn.ModuleList(
            AnchorCalibration(
                width,
                n_regions,
                n_anchors_per_class,
                calibration_heads,
                calibration if scale >= calibration_scale else "off",
                calibration_head_width,
                calibration_dropout,
            )
            for scale, width in enumerate(stages.features)
        )
        self.auxiliary = AuxiliaryDecoder(settings, stages, num_classes, auxiliary_scale)

    def forward(self, images: Tensor) -> Tensor | TrainingOutput:
        """Segment `images` (B, M, *space), channels in the order of `modalities`.

        Returns:
            logits (B, H, *space), or a `TrainingOutput` under deep supervision.

        Raises:
            DatasetError: the number of channels is not that of the owned modalities.
        """
        if images.shape[1] != len(self.modalities):
            raise DatasetError(
                "The image does not have the channels that this model was trained with",
                expected=f"{len(self.modalities)} channels: {', '.join(self.modalities)}",
                found=f"{images.shape[1]} channels",
                remedy="give one image file per modality, in this order; a scan that was not made is a blank "
                "(all-zero) image",
            )
        present = present_modalities(images)
        if self.shared_encoder:
            images, present = self._zero_filled(images), present[:, :1] | True
        features = self._encode(images, present)
        decoded = self.decoder(features, present, self.calibrations)
        if not self.decoder.deep_supervision:
            return decoded.segmentation
        auxiliary = self.auxiliary(features) if self.training else None
        fused = [scale.detach() for scale in decoded.fused]
        return TrainingOutput(decoded.segmentation, decoded.region_maps, auxiliary, fused)

    def _encode(self, images: Tensor, present: Tensor) -> list[Tensor]:
        inputs = [images] if self.shared_encoder else images.split(1, 1)
        per_modality = [encoder(image) for encoder, image in zip(self.encoders.values(), inputs, strict=True)]
        mask = _expand(present, images.ndim + 1)
        return [torch.stack(scale, 1) * mask.to(scale[0].dtype) for scale in zip(*per_modality, strict=True)]

    def _zero_filled(self, images: Tensor) -> Tensor:
        """Return (B, N, *space): every canonical modality, absent ones zero."""
        filled = images.new_zeros(images.shape[0], len(self.canonical_modalities), *images.shape[2:])
        filled[:, self._owned] = images
        return filled

    def set_anchors(self, anchors: Sequence[Tensor], valid: Tensor, in_use: bool) -> None:
        """Copy anchors into every scale's calibration.

        Args:
            anchors: per scale, high to low resolution: (L, K, C of the scale).
            valid: (L, K) bool.
            in_use: False keeps the anchors without calibrating by them, as a lead does.
        """
        for calibration, values in zip(self._calibrations(), anchors, strict=True):
            calibration.set_anchors(values, valid, in_use)

    def use_anchors(self, in_use: bool) -> None:
        """Calibrate, or do not calibrate, by the anchors that are there."""
        for calibration in self._calibrations():
            calibration.set_anchors(calibration.anchors, calibration.valid, in_use)

    def anchor_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Return (L, K, C) of the anchors at each scale, high to low resolution."""
        return tuple(tuple(calibration.anchors.shape) for calibration in self._calibrations())  # type: ignore[misc]

    def _calibrations(self) -> list[AnchorCalibration]:
        return [module for module in self.calibrations if isinstance(module, AnchorCalibration)]

    def parts(self) -> NetworkParts:
        """Return which parameters play which role; every parameter has exactly one."""

        def names(prefix: str) -> tuple[str, ...]:
            return tuple(name for name, _ in self.named_parameters() if name.startswith(prefix + "."))

        return NetworkParts(
            encoders={name: names(f"encoders.{name}") for name in self.encoders},
            fusion_decoder=names("decoder"),
            calibration=names("calibrations"),
            auxiliary_decoder=names("auxiliary"),
        )

    def decoder_filters(self) -> list[FilterGroup]:
        """Return the filters of the fusion decoder, one group a convolution, in the order of the forward pass."""
        return list(filter_groups(self.decoder, "decoder"))

    def partly_owned_parameters(self) -> Iterator[str]:
        """Yield the parameters that hold columns of absent modalities, where a site owns some modalities only.

        Such columns get no gradient; weight decay would slowly erase them, so they must be spared it.
        """
        if len(self.modalities) == len(self.canonical_modalities):
            return
        if self.shared_encoder:
            yield f"encoders.{SHARED_ENCODER}.stages.0.0.conv.weight"
        else:
            for s in range(len(self.strides)):
                yield f"decoder.fusions.{s}.shortcut.conv.weight"
                yield f"decoder.fusions.{s}.gates.hidden.weight"
                yield f"decoder.fusions.{s}.gates.weigh.weight"

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Initialise as nnU-Net does (He normal, leaky ReLU slope 0.01); calibration initialises itself."""
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(module.weight, a=1e-2)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Return the number of feature-map elements of one sample in training, nnU-Net's measure of memory.

        Counts what every convolution, product and attention layer puts out, auxiliary decoder included.
        """
        total, size = 0, list(input_size)
        for s, stride in enumerate(self.strides):
            size = [n // k for n, k in zip(size, stride, strict=True)]
            total += prod(size) * self._channels_at_scale(s)
        return total

    def _channels_at_scale(self, scale: int) -> int:
        width, coarsest = self._widths[scale], scale + 1 == len(self.strides)
        encoder = width * self._n_convs[scale]
        auxiliary = 0 if coarsest or scale < self.auxiliary.scale else 2 * width
        decoder = self.decoder.channels_at_scale(scale)
        calibration = self._calibrations()[scale].channels()
        return len(self.encoders) * (encoder + auxiliary) + decoder + calibration


def present_modalities(images: Tensor) -> Tensor:
    """Return (B, M) bool: which channels of `images` (B, M, *space) are not blank.

    A patch without any signal (all background) counts as having everything: there is nothing to fuse there, but
    attention over no modality at all would be undefined.
    """
    present = (images != 0).flatten(2).any(-1)
    return present | ~present.any(1, keepdim=True)


def _expand(present: Tensor, ndim: int) -> Tensor:
    return present.view(*present.shape, *[1] * (ndim - 2))


def _per_stage(value: Sequence[int] | int, n_stages: int) -> list[int]:
    return [value] * n_stages if isinstance(value, int) else list(value)


def _check_modalities(modalities: Sequence[str], canonical: Sequence[str], input_channels: int) -> None:
    if not modalities or len(set(modalities)) < len(modalities) or not set(modalities) <= set(canonical):
        raise ModalityError(
            f"The network's modalities are {list(modalities)}; expected at least one, each once, out of the canonical "
            f"{list(canonical)}. Plan the dataset again with FedMEPDPlanner."
        )
    if len(modalities) != input_channels:
        raise ModalityError(
            f"The plans name {len(modalities)} modalities {list(modalities)}, the dataset has {input_channels} "
            "channels. The plans were made for another dataset: plan this one again with FedMEPDPlanner."
        )
