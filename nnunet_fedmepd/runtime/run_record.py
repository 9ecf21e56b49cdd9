"""Reads what a report is made of from a run's folder, also while the run goes on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import parse_federation
from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.evaluation.report.record import RunRecord
from nnunet_fedmepd.evaluation.tables import CHECKPOINTS, SPLITS, EvaluationFolder, read_scores
from nnunet_fedmepd.federation.storage import StateFileError
from nnunet_fedmepd.federation.tensors import take_list
from nnunet_fedmepd.modalities import BRATS_LABELS
from nnunet_fedmepd.runtime.drawn_cases import evaluated_images
from nnunet_fedmepd.runtime.local import participants
from nnunet_fedmepd.runtime.planned_site import site_files
from nnunet_fedmepd.runtime.run_folder import RunFolder, read_json
from nnunet_fedmepd.runtime.site_attention import slice_attention

Announce = Callable[[str], None]


def evaluation_to_show(run: Path, checkpoint: str | None, split: str | None) -> EvaluationFolder:
    """Return the evaluation that a report shows: the one asked for, else the first that is there."""
    folders = [EvaluationFolder(run, c, s) for s in SPLITS for c in CHECKPOINTS]
    asked = [f for f in folders if checkpoint in (None, f.checkpoint) and split in (None, f.split)]
    return next((folder for folder in asked if folder.cases.is_file()), asked[0])


def read_record(
    folder: RunFolder, evaluation: EvaluationFolder, headline: str, announce: Announce = lambda what: None
) -> RunRecord:
    """Return everything that a report of a run shows.

    Args:
        folder: of the run.
        evaluation: whose scores and predictions are shown.
        headline: what the run is doing.
        announce: is told what is read next.

    Raises:
        RunError: there is no run.
        DatasetError: a table of scores is damaged.
    """
    federation = parse_federation(read_json(folder.path / "run.json")["identity"]["federation"], str(folder.path))
    sites = [site.name for site in federation.site if site.name in {p.name for p in participants(federation)}]
    journal = folder.journal()
    turns = [line for line in journal if "train_loss" in line]
    missing: dict[str, str] = {}
    anchors, valid = _anchors(folder, missing)
    scores = read_scores(evaluation.cases)
    announce("predictions")
    images = evaluated_images(federation, evaluation, scores, missing)
    trained = {turn["site"] for turn in turns}
    description = _description(federation, sites)
    return RunRecord(
        path=folder.path,
        headline=headline,
        finished=folder.status()["state"] == "finished",
        federation=federation,
        sites=sites,
        turns=turns,
        refused=Counter(line["site"] for line in journal if "refused" in line),
        layers=folder.layers(),
        class_names=_class_names(description, len(valid)),
        label_names=_label_names(description),
        anchors=anchors,
        valid=valid,
        evaluation=evaluation,
        scores=scores,
        images=images,
        attention=slice_attention(folder, federation, [s for s in sites if s in trained], missing, announce)
        if valid.any()
        else (),
        missing=missing,
    )


def _anchors(folder: RunFolder, missing: dict[str, str]) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the anchors of every scale, and which are valid."""
    try:
        newest = folder.coordinator.load_newest()
    except StateFileError as error:
        missing["anchors"] = str(error)
        newest = None
    if newest is None or "anchor_valid" not in newest[0]:
        return [], np.zeros((0, 0), bool)
    tensors, _ = newest
    return [anchors.numpy() for anchors in take_list(tensors, "anchor_value")], tensors["anchor_valid"].numpy()


def _description(federation: Federation, sites: list[str]) -> dict[str, Any]:
    """Return dataset.json of the first site that has one here; an empty one without labels if none has."""
    for site in sites:
        try:
            return json.loads(site_files(site, federation).dataset_json.read_text("utf-8"))
        except (FedMEPDError, RuntimeError, OSError, ValueError):  # nnU-Net's folders are elsewhere, or not set
            continue
    return {}


def _class_names(description: Mapping[str, Any], n_classes: int) -> list[str]:
    """Return what the classes of the anchors are called, background first, as nnU-Net orders them."""
    labels = _foreground(description)
    if not any(_is_region(value) for value in labels.values()):
        labels = dict(sorted(labels.items(), key=lambda item: int(item[1])))
    names = ["background", *(name.replace("_", " ") for name in labels)]
    return names if len(names) == n_classes else [f"class {i}" for i in range(n_classes)]


def _label_names(description: Mapping[str, Any]) -> dict[int, str]:
    """Return value -> name of what is drawn; regions overlap, so that their labels go by BraTS's names or none."""
    labels = _foreground(description)
    if not any(_is_region(value) for value in labels.values()):
        return {int(value): name.replace("_", " ") for name, value in labels.items()}
    brats = {value: name.replace("_", " ") for name, value in BRATS_LABELS.items()}
    values = sorted({int(label) for value in labels.values() for label in (value if _is_region(value) else [value])})
    return {value: brats[value] if set(values) <= set(brats) else f"label {value}" for value in values}


def _foreground(description: Mapping[str, Any]) -> dict[str, Any]:
    labels = description.get("labels", BRATS_LABELS)
    return {name: value for name, value in labels.items() if name not in {"background", "ignore"}}


def _is_region(value: Any) -> bool:
    return isinstance(value, (list, tuple))
