"""What is checked of an update before it touches a sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.federation.messages import Anchors, LeadUpdate, Parameters, SiteUpdate, Update
from nnunet_fedmepd.federation.roster import Model, Participant, flat_norm
from nnunet_fedmepd.maths.exact_sums import MAX_MAGNITUDE, largest_magnitude
from nnunet_fedmepd.maths.parameters import ParameterError, along_axis, check_alike, check_subset, dense

MAX_CASES = 10_000_000


class UpdateRefusedError(FedMEPDError):
    """An update did not pass; the round goes on without it.

    Args:
        site: who sent it.
        reason: what is wrong, and what was expected.
    """

    def __init__(self, site: str, reason: str) -> None:
        self.site, self.reason = site, reason
        super().__init__(f"The update of site {site!r} is refused: {reason}")


@dataclass(frozen=True)
class Limits:
    """Bounds of an update's numbers.

    Attributes:
        maximum_importance: of a filter's importance h.
        maximum_norm: of |sent back - handed over| / |handed over|, encoders and decoder each; None: unbounded.
    """

    maximum_importance: float
    maximum_norm: float | None = None


@dataclass(frozen=True)
class Expectation:
    """What an update of one round must be like.

    Attributes:
        run_id, round_number: of the round.
        participants: by name.
        model: the coordinator's parameters as handed over.
        decoder_travels: whether sites send shared filters.
        anchors_travel: whether leads send anchors.
        limits: bounds.
    """

    run_id: str
    round_number: int
    participants: Mapping[str, Participant]
    model: Model
    decoder_travels: bool
    anchors_travel: bool
    limits: Limits

    def check(self, update: Update) -> None:
        """Check that an update may enter the sums.

        Raises:
            UpdateRefusedError: naming the site and the first thing that is wrong.
        """
        site = str(update.site)[:100]
        try:
            self._check_origin(update)
            self._check_encoders(update)
            if isinstance(update, LeadUpdate):
                self._check_lead(update)
            else:
                self._check_filters(update)
        except ParameterError as error:
            raise UpdateRefusedError(site, str(error)) from None

    def _check_origin(self, update: Update) -> None:
        _require(update.site in self.participants, f"no such site; expected one of {sorted(self.participants)}")
        participant = self.participants[update.site]
        expected = LeadUpdate if participant.is_lead else SiteUpdate
        _require(isinstance(update, expected), f"it is a {type(update).__name__}; expected a {expected.__name__}")
        _require(update.run_id == self.run_id, f"it belongs to run {update.run_id!r}; expected {self.run_id!r}")
        _require(
            update.round_number == self.round_number,
            f"it belongs to round {update.round_number}; expected {self.round_number}",
        )
        _require(
            0 < update.n_cases <= MAX_CASES, f"it claims {update.n_cases} training cases; expected 1 to {MAX_CASES}"
        )

    def _check_encoders(self, update: Update) -> None:
        expected = self.model.encoders_of(self.participants[update.site].modalities)
        _require(
            set(update.encoders) == set(expected),
            f"it has encoders of {sorted(update.encoders)}; declared are the modalities {sorted(expected)}",
        )
        for modality, parameters in update.encoders.items():
            self._check_parameters(parameters, expected[modality], f"the encoder of {modality}")

    def _check_lead(self, update: LeadUpdate) -> None:
        self._check_parameters(update.decoder, self.model.decoder, "the fusion decoder")
        if update.anchors is not None:
            _require(self.anchors_travel, "it has anchors; none are expected")
            self._check_anchors(update.anchors)

    def _check_filters(self, update: SiteUpdate) -> None:
        groups = self.model.groups
        if not self.decoder_travels:
            _require(update.decoder is None and not update.importance, "it has decoder filters; none are expected")
            return
        if update.decoder is None:
            raise ParameterError("it has no decoder filters")
        check_subset(update.decoder, groups)
        whole = dense(update.decoder, groups)
        self._check_parameters(whole, self.model.decoder, "the shared filters", update.decoder.masks)
        names = {group.name: group.n_filters for group in groups}
        _require(set(update.importance) == set(names), "its importance does not cover the decoder's filter groups")
        for name, importance in update.importance.items():
            fits = importance.shape == (names[name],) and importance.dtype == torch.float32
            _require(fits, f"the importance of {name!r} is {_described(importance)}; expected ({names[name]},) float32")
            valid = bool(((importance >= 0) & (importance <= self.limits.maximum_importance)).all())
            _require(valid, f"the importance of {name!r} leaves 0 to {self.limits.maximum_importance:g}")

    def _check_parameters(
        self, found: Parameters, expected: Parameters, what: str, masks: Mapping[str, Tensor] | None = None
    ) -> None:
        check_alike(found, expected, what)
        for name, tensor in found.items():
            bounded = largest_magnitude(tensor) <= MAX_MAGNITUDE
            _require(bounded, f"{name!r} of {what} holds a value that is not finite or beyond {MAX_MAGNITUDE:.0f}")
        if self.limits.maximum_norm is not None:
            change = flat_norm(_change(found, expected, self.model, masks)) / max(flat_norm(expected), 1e-12)
            _require(
                change <= self.limits.maximum_norm,
                f"{what} changed by {change:.3g} times its norm; at most {self.limits.maximum_norm:g} is allowed",
            )

    def _check_anchors(self, anchors: Anchors) -> None:
        shapes, expected = [tuple(values.shape) for values in anchors.values], list(self.model.anchor_shapes)
        _require(shapes == expected, f"its anchors have shapes {shapes}; expected {expected}")
        fits = anchors.valid.dtype == torch.bool and tuple(anchors.valid.shape) == expected[0][:2]
        _require(fits, f"its anchors' validity is {_described(anchors.valid)}; expected {expected[0][:2]} bool")
        for values in anchors.values:
            _require(values.dtype == torch.float32, f"its anchors are {values.dtype}; expected float32")
            _require(bool((values.abs() <= MAX_MAGNITUDE).all()), "its anchors hold a value that is not finite")


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise ParameterError(reason)


def _change(
    found: Parameters, expected: Parameters, model: Model, masks: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Return found - expected; filters that were not sent count as unchanged."""
    change = {name: found[name].double() - expected[name].double() for name in expected}
    if masks is None:
        return change
    for group in model.groups:
        for name, axis in group.members:
            change[name] = change[name] * along_axis(masks[group.name], axis, change[name].ndim)
    return change


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
