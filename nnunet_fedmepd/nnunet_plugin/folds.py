"""Which cases a fold trains on, and which it leaves out to choose the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_fedmepd.errors import ConfigurationError

# nnU-Net's own cross-validation, where no splits are given.
N_FOLDS = 5
_SEED = 12345


@dataclass(frozen=True)
class Fold:
    """The cases of a fold; with the fold `all` both are all cases."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def find_fold(dataset: Path, data: Path, fold: int | str) -> Fold:
    """Return a fold as nnU-Net will take it.

    Args:
        dataset: the dataset's folder in nnUNet_preprocessed, which may hold `splits_final.json`.
        data: the folder in it with the preprocessed cases.
        fold: `all`, or a number.

    Raises:
        ConfigurationError: there is no such fold, there are too few cases to make it, or it has no case for something.
    """
    cases = sorted(infer_dataset_class(str(data)).get_identifiers(str(data)))
    if fold == "all":
        return Fold(tuple(cases), tuple(cases))
    splits = _splits(dataset / "splits_final.json", cases)
    if int(fold) >= len(splits):
        raise ConfigurationError(
            f"{dataset / 'splits_final.json'} has no fold {fold}, only 0 to {len(splits) - 1}. Correct run.fold."
        )
    chosen = Fold(tuple(splits[int(fold)]["train"]), tuple(splits[int(fold)]["val"]))
    if not chosen.train or not chosen.val or set(chosen.train + chosen.val) - set(cases):
        raise ConfigurationError(
            f"Fold {fold} of {dataset / 'splits_final.json'} is not usable: expected at least one case under train and "
            f"one under val, each of them preprocessed in {data}."
        )
    return chosen


def _splits(file: Path, cases: Sequence[str]) -> list[dict[str, list[str]]]:
    if file.is_file():
        return json.loads(file.read_text("utf-8"))
    if len(cases) < N_FOLDS:
        raise ConfigurationError(
            f"{len(cases)} training cases cannot be divided into nnU-Net's {N_FOLDS} folds. Say which cases are for "
            f"validation (split 'val' in the table for `fedmepd convert --split`, or {file}), or set run.fold = 'all'."
        )
    return generate_crossval_split(list(cases), seed=_SEED, n_splits=N_FOLDS)
