"""Scores predictions again without components that are too small to be believed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import Console

from nnunet_fedmepd.evaluation.small_components import (
    choose_limit,
    describe_limits,
    drop_small_components,
    write_limits,
)
from nnunet_fedmepd.evaluation.tables import CaseScore, EvaluationFolder
from nnunet_fedmepd.nnunet_plugin.held_out import HeldOutCase
from nnunet_fedmepd.nnunet_plugin.label_files import LabelMap
from nnunet_fedmepd.runtime.case_scoring import CaseScorer, n_cases, short_digest
from nnunet_fedmepd.runtime.evaluating import Predicting, evaluate_sites
from nnunet_fedmepd.runtime.finished_run import SiteModel
from nnunet_fedmepd.runtime.progress import counting
from nnunet_fedmepd.runtime.score_table import ScoreTable, alone


def evaluate_without_small(
    targets: Sequence[SiteModel],
    validation: Sequence[SiteModel],
    folder: EvaluationFolder,
    predicting: Predicting,
    console: Console,
) -> list[CaseScore]:
    """Choose limits on validation cases, drop smaller components from test cases' predictions, and score these.

    All sites have the limits in common, for one site's validation cases are few. Predictions as they were, and their
    scores, go to folders of their own; what is there already is taken over.

    Args:
        targets: models and test cases.
        validation: the same models and validation cases.
        folder: of the test cases' evaluation, small components included.
        predicting: how cases are predicted.
        console: for progress, and for what the limits are.

    Raises:
        DatasetError: images and reference of a case do not fit together.
        BusyError: another process evaluates the same checkpoint.
        StateFileError: a file cannot be written.
    """
    chosen_on = replace(folder, split="val")
    evaluate_sites(validation, chosen_on, predicting, console)
    limits = _choose(validation, chosen_on)
    write_limits(folder.limits, limits)
    console.print(describe_limits(limits))
    complete = evaluate_sites(targets, folder, predicting, console)
    return _drop(targets, folder, complete, limits, console)


def _choose(validation: Sequence[SiteModel], folder: EvaluationFolder) -> dict[str, float]:
    """Return every region's limit, chosen on what the limits of the regions before leave of the predictions."""
    scorers = [CaseScorer(target) for target in validation]
    limits: dict[str, float] = {}
    for region in dict.fromkeys(region for scorer in scorers for region in scorer.regions):
        found = [
            scorer.components(case, _predicted(scorer, folder, target, case).labels, limits, region)
            for scorer, target in zip(scorers, validation, strict=True)
            if region in scorer.regions
            for case in target.held_out.cases
        ]
        limits[region] = choose_limit(found)
    return limits


def _predicted(scorer: CaseScorer, folder: EvaluationFolder, target: SiteModel, case: HeldOutCase) -> LabelMap:
    return scorer.files.read(
        folder.predictions(target.site) / f"{case.name}{target.held_out.description['file_ending']}"
    )


def _drop(
    targets: Sequence[SiteModel],
    source: EvaluationFolder,
    complete: Sequence[CaseScore],
    limits: Mapping[str, float],
    console: Console,
) -> list[CaseScore]:
    folder, of_case = replace(source, large_only=True), {(score.site, score.case): score for score in complete}
    with alone(folder), counting(console, "dropping small components", n_cases(targets)) as advance:
        table = ScoreTable(folder.cases)
        for target in targets:
            scorer, ending = CaseScorer(target), target.held_out.description["file_ending"]
            for case in target.held_out.cases:
                before = of_case[target.site, case.name]
                made_of = short_digest(before.made_of, json.dumps(limits, sort_keys=True))
                predicted, file = (own.predictions(target.site) / f"{case.name}{ending}" for own in (source, folder))
                if not file.is_file() or not table.holds(target.site, case.name, scorer.regions, made_of):
                    label_map = scorer.files.read(predicted)
                    labels = drop_small_components(label_map.labels, label_map.spacing_mm, scorer.regions, limits)
                    scorer.files.write(labels, label_map.properties, file)
                    table.put(scorer.score(case, labels, before.modalities.split("+"), made_of))
                advance()
        return table.keep((target.site, case.name) for target in targets for case in target.held_out.cases)
