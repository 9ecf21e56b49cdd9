"""Convolution blocks in nnU-Net's terms, and the filters they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from nnunet_fedmepd.maths.parameters import FilterGroup
from nnunet_fedmepd.networks.normalization import faster
from nnunet_fedmepd.networks.pointwise import conv_class


@dataclass(frozen=True)
class BlockSettings:
    """What all convolution blocks of a network share; the names are those of nnU-Net's `arch_kwargs`."""

    conv_op: type[_ConvNd]
    conv_bias: bool = False
    norm_op: type[nn.Module] | None = None
    norm_op_kwargs: dict[str, Any] = field(default_factory=dict)
    dropout_op: type[nn.Module] | None = None
    dropout_op_kwargs: dict[str, Any] = field(default_factory=dict)
    nonlin: type[nn.Module] | None = None
    nonlin_kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """Number of spatial dimensions, 2 or 3."""
        return {nn.Conv2d: 2, nn.Conv3d: 3}[self.conv_op]

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int] | int = 1,
        stride: Sequence[int] | int = 1,
        bias: bool = True,
    ) -> _ConvNd:
        """Return a convolution that keeps the resolution but for its stride."""
        kernel, strides = ([size] * self.dim if isinstance(size, int) else list(size) for size in (kernel_size, stride))
        conv: Any = conv_class(self.conv_op, kernel, strides)
        return conv(in_channels, out_channels, kernel, strides, padding=[(k - 1) // 2 for k in kernel], bias=bias)

    def upsampling(self, in_channels: int, out_channels: int, stride: Sequence[int]) -> _ConvTransposeNd:
        """Return the transposed convolution that undoes a stride."""
        transposed_conv = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[self.dim]
        return transposed_conv(in_channels, out_channels, list(stride), list(stride), bias=self.conv_bias)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Stages:
    """The resolutions of a network, high to low, as nnU-Net plans them.

    Attributes:
        features: channels of each stage.
        kernel_sizes: one size an axis, per stage.
        strides: by which each stage reduces the resolution of the one before, per axis.
    """

    features: Sequence[int]
    kernel_sizes: Sequence[Sequence[int]]
    strides: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.features)


class ConvBlock(nn.Module):
    """Convolution, dropout, normalisation, nonlinearity, each where the settings have one.

    `conv` may be given ready-made (it then replaces the plain convolution, with the same output channels).
    """

    conv: Any  # a module with `weight` and `bias`

    def __init__(
        self,
        settings: BlockSettings,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int] | int = 1,
        stride: Sequence[int] | int = 1,
        conv: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv = conv or settings.conv(in_channels, out_channels, kernel_size, stride, settings.conv_bias)
        after: list[nn.Module] = []
        if settings.dropout_op is not None:
            after.append(settings.dropout_op(**settings.dropout_op_kwargs))
        if settings.norm_op is not None:
            after.append(faster(settings.norm_op)(out_channels, **settings.norm_op_kwargs))
        if settings.nonlin is not None:
            after.append(settings.nonlin(**settings.nonlin_kwargs))
        self.after = nn.Sequential(*after)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.after(self.conv(*inputs))


def conv_stack(
    settings: BlockSettings,
    n_convs: int,
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int] | int,
    stride: Sequence[int] | int = 1,
) -> nn.Sequential:
    """Return `n_convs` blocks in a row; the first one changes the width and, by `stride`, the resolution."""
    first = ConvBlock(settings, in_channels, out_channels, kernel_size, stride)
    rest = [ConvBlock(settings, out_channels, out_channels, kernel_size) for _ in range(n_convs - 1)]
    return nn.Sequential(first, *rest)


def filter_groups(module: nn.Module, prefix: str) -> Iterator[FilterGroup]:
    """Yield the filters of `module`, one group a convolution.

    A filter is one output channel of a convolution: its weights, its bias and, in a `ConvBlock`, the scale and
    shift of the normalisation right behind it. `prefix` is prepended to every name.
    """
    if isinstance(module, (ConvBlock, _ConvNd)):
        yield _filter_group(module, prefix)
        return
    for name, child in module.named_children():
        yield from filter_groups(child, f"{prefix}.{name}")


def _filter_group(module: nn.Module, name: str) -> FilterGroup:
    members, n_filters = [], 0
    for owner_name, owner in module.named_modules(prefix=name):
        axis = 1 if isinstance(owner, _ConvTransposeNd) else 0
        for parameter_name, parameter in owner.named_parameters(recurse=False):
            own_axis = axis if parameter.ndim > 1 else 0
            members.append((f"{owner_name}.{parameter_name}", own_axis))
            n_filters = parameter.shape[own_axis]
    return FilterGroup(name=name, members=tuple(members), n_filters=n_filters)
