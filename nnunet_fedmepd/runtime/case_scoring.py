"""Scores label maps that a site's model predicted against the references of its cases."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
from jaxtyping import Integer

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.metrics import score_regions
from nnunet_fedmepd.evaluation.regions import ignore_label, scored_regions
from nnunet_fedmepd.evaluation.small_components import Components, drop_small_components, find_components
from nnunet_fedmepd.evaluation.tables import CaseScore
from nnunet_fedmepd.nnunet_plugin.held_out import HeldOutCase
from nnunet_fedmepd.nnunet_plugin.label_files import LabelFiles, LabelMap
from nnunet_fedmepd.runtime.finished_run import SiteModel

_DIGITS = 16


class CaseScorer:
    """Scores the held-out cases of one site.

    Args:
        target: the site, its model and cases.

    Attributes:
        regions: name -> labels, what is scored.
        files: reads and writes the site's label maps.
    """

    def __init__(self, target: SiteModel) -> None:
        self._site = target.site
        self.regions = scored_regions(target.held_out.description)
        self.files = LabelFiles(target.model.plans())
        self._ignore = ignore_label(target.held_out.description)

    def score(
        self, case: HeldOutCase, labels: Integer[np.ndarray, "X Y Z"], shown: Sequence[str], made_of: str
    ) -> list[CaseScore]:
        """Return a row per region.

        Args:
            case: of the site.
            labels: predicted, in the space of its images.
            shown: modalities that the model saw.
            made_of: see `CaseScore`.

        Raises:
            DatasetError: the reference has another shape.
        """
        reference = self._reference(case, labels)
        scores = score_regions(
            reference.labels, labels.astype(np.int64), reference.spacing_mm, self.regions, self._ignore
        )
        return [
            CaseScore(self._site, case.name, "+".join(shown), region, **asdict(score), made_of=made_of)
            for region, score in scores.items()
        ]

    def components(
        self, case: HeldOutCase, labels: Integer[np.ndarray, "X Y Z"], limits_ml: Mapping[str, float], region: str
    ) -> Components:
        """Return a region's components in a prediction, from which those below the limits of other regions are gone.

        Raises:
            DatasetError: the reference has another shape.
        """
        reference = self._reference(case, labels)
        left = drop_small_components(labels, reference.spacing_mm, self.regions, limits_ml)
        scored = None if self._ignore is None else reference.labels != self._ignore
        return find_components(reference.labels, left, reference.spacing_mm, self.regions, region, scored)

    def _reference(self, case: HeldOutCase, labels: Integer[np.ndarray, "X Y Z"]) -> LabelMap:
        reference = self.files.read(case.reference)
        if reference.labels.shape != labels.shape:
            raise DatasetError(
                "A reference segmentation does not have the shape of its images",
                case=case.name,
                file=case.reference,
                expected=labels.shape,
                found=reference.labels.shape,
            )
        return reference


def short_digest(*parts: str) -> str:
    """Return a digest of texts, for `CaseScore.made_of`."""
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:_DIGITS]


def n_cases(targets: Iterable[SiteModel]) -> int:
    """Return how many cases all sites hold out."""
    return sum(len(target.held_out.cases) for target in targets)
