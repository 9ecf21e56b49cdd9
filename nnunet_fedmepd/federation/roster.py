"""Who takes part, and what their parameters look like: agreed before the first round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from nnunet_fedmepd.federation.messages import Parameters
from nnunet_fedmepd.maths.parameters import FilterGroup, check_groups


@dataclass(frozen=True)
class Participant:
    """A site as the coordinator knows it.

    Attributes:
        name: unique.
        modalities: encoders that it trains.
        is_lead: whether its turn comes after aggregation.
    """

    name: str
    modalities: tuple[str, ...]
    is_lead: bool = False


@dataclass(frozen=True)
class Model:
    """The exchanged parameters of a network with every modality.

    Attributes:
        encoders: modality -> parameters.
        decoder: the fusion decoder.
        groups: the filters of the decoder.
        anchor_shapes: (L, K, C) of the anchors at each scale, high to low resolution.
    """

    encoders: Mapping[str, Parameters]
    decoder: Parameters
    groups: Sequence[FilterGroup]
    anchor_shapes: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        check_groups(self.decoder, self.groups)

    @property
    def n_anchors_per_class(self) -> int:
        """K."""
        return self.anchor_shapes[0][1]

    def encoders_of(self, modalities: Sequence[str]) -> dict[str, Parameters]:
        """Return the encoders of some modalities."""
        return {modality: self.encoders[modality] for modality in modalities}


def flat_norm(parameters: Mapping[str, Tensor]) -> float:
    """Return the Euclidean norm of all parameters together."""
    return float(sum(float(tensor.double().square().sum()) for tensor in parameters.values()) ** 0.5)
