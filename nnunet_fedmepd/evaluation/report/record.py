"""What a report is made of, read from a run's folder beforehand; whatever a run does not have yet is empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.evaluation.tables import CaseScore, EvaluationFolder
from nnunet_fedmepd.networks.decoder_layers import DecoderLayer


@dataclass(frozen=True)
class CaseImages:
    """The files of an evaluated case.

    Attributes:
        modality: of the image.
        image, reference, prediction: volumes of one shape.
    """

    modality: str
    image: Path
    reference: Path
    prediction: Path


@dataclass(frozen=True, eq=False)
class SliceAttention:
    """How the voxels of one slice of a case attend to the anchors, at the finest scale that is calibrated.

    Attributes:
        site, case, modality: what is seen.
        image, labels: (Y, X), at the full resolution.
        shares: (L, Y, X) of that scale, attention to all anchors of a class, mean over the heads; sums to 1 over the
            classes.
        entropy: (Y, X) of that scale, of the attention over the single anchors, mean over the heads; 1 is uniform.
        scale_entropy: the mean entropy of the slice at every calibrated scale, high to low resolution.
    """

    site: str
    case: str
    modality: str
    image: np.ndarray
    labels: np.ndarray
    shares: np.ndarray
    entropy: np.ndarray
    scale_entropy: tuple[float, ...]


@dataclass(frozen=True)
class RunRecord:
    """A run, finished or not.

    Attributes:
        path: its folder.
        headline: what it is doing, in one line.
        finished: whether it has ended.
        federation: its file.
        sites: who trains, in the order of the file.
        turns: the journal's lines of turns that were taken, in their order.
        refused: site -> updates that the coordinator refused.
        layers: of the decoder, in the order of the turns' `personal` and `agreement`; empty where not written down.
        class_names: of the anchors, background first.
        label_names: value of a label map -> name, without background.
        anchors: per scale, high to low resolution: (L, K, C); empty where there are none.
        valid: (L, K) bool.
        evaluation: folder that the scores are from.
        scores: of every site's model on its held-out cases.
        images: (site, case) -> its files, where all of them are there.
        attention: one slice a site.
        missing: part of the report -> why its data could not be had, for the reader.
    """

    path: Path
    headline: str
    finished: bool
    federation: Federation
    sites: Sequence[str]
    turns: Sequence[Mapping[str, Any]]
    refused: Mapping[str, int]
    layers: Sequence[DecoderLayer]
    class_names: Sequence[str]
    label_names: Mapping[int, str]
    anchors: Sequence[np.ndarray]
    valid: np.ndarray
    evaluation: EvaluationFolder
    scores: Sequence[CaseScore] = ()
    images: Mapping[tuple[str, str], CaseImages] = field(default_factory=dict)
    attention: Sequence[SliceAttention] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    def turns_of(self, site: str) -> list[Mapping[str, Any]]:
        """Return a site's turns."""
        return [turn for turn in self.turns if turn["site"] == site]

    @property
    def last_round(self) -> int:
        """The last round in which a site trained; 0 before the first."""
        return max((turn["round"] for turn in self.turns), default=0)

    def by_round(self, site: str, key: str) -> np.ndarray:
        """Return (rounds,) a number of every turn of a site, NaN where it did not train or has no such number."""
        values = np.full(self.last_round, np.nan)
        for turn in self.turns_of(site):
            values[turn["round"] - 1] = turn.get(key, np.nan)
        return values

    def by_layer(self, site: str, key: str) -> np.ndarray:
        """Return (layers, rounds) the numbers of a site's turns by layer, NaN where there is none."""
        values = np.full((len(self.layers), self.last_round), np.nan)
        for turn in self.turns_of(site):
            if key in turn and len(turn[key]) == len(self.layers):
                values[:, turn["round"] - 1] = np.array(turn[key], dtype=float)  # None becomes NaN
        return values

    def is_lead(self, site: str) -> bool:
        """Return whether a site leads in this run."""
        return self.federation.method.lead_role == "lead" and self.federation.site_named(site).lead
