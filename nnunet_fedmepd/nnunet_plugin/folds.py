"""Which cases a fold trains on, and which it leaves out to choose the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_fedmepd.errors import ConfigurationError

# nnU-Net's own cross-validation, where no splits are given.
N_FOLDS = 5
_SEED = 12345


@dataclass(frozen=True)
class Fold:
    """The cases of a fold.

    Attributes:
        train: that are trained on.
        val: that choose the model; with the fold `all` both are all cases.
        left_out: preprocessed cases that are in neither.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return a SHA-256 of the cases that are trained on and that choose the model, in their order."""
        return hashlib.sha256(json.dumps([self.train, self.val]).encode()).hexdigest()


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
    file = splits_file(dataset)
    chosen = read_fold(file, int(fold)) if file.is_file() else _nnunets_fold(file, cases, int(fold))
    named = set(chosen.train + chosen.val)
    if not chosen.train or not chosen.val or named - set(cases):
        raise ConfigurationError(
            f"Fold {fold} of {file} is not usable: expected at least one case under train and one under val, each of "
            f"them preprocessed in {data}. Correct the file, or choose another run.fold."
        )
    return replace(chosen, left_out=tuple(case for case in cases if case not in named))


def splits_file(dataset: Path) -> Path:
    """Return where the folds of a dataset in nnUNet_preprocessed are, once some were given or trained."""
    return dataset / "splits_final.json"


def read_fold(file: Path, fold: int) -> Fold:
    """Return a fold of a `splits_final.json` as it stands there.

    Raises:
        ConfigurationError: the file is damaged, or has no such fold.
    """
    try:
        splits = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigurationError(
            f"{file} is no valid JSON: {error}. Restore it, or remove it: nnU-Net then divides the cases itself."
        ) from None
    if isinstance(splits, list) and fold >= len(splits):
        raise ConfigurationError(f"{file} has no fold {fold}, only 0 to {len(splits) - 1}. Correct run.fold.")
    try:
        return Fold(tuple(map(str, splits[fold]["train"])), tuple(map(str, splits[fold]["val"])))
    except (KeyError, TypeError):
        raise ConfigurationError(
            f"Fold {fold} of {file} cannot be read: expected a list of folds, each with the lists `train` and `val`. "
            "Correct the file."
        ) from None


def _nnunets_fold(file: Path, cases: Sequence[str], fold: int) -> Fold:
    if len(cases) < N_FOLDS:
        raise ConfigurationError(
            f"{len(cases)} training cases cannot be divided into nnU-Net's {N_FOLDS} folds. Say which cases are for "
            f"validation (split 'val' in the table for `fedmepd convert --split`, or {file}), or set run.fold = 'all'."
        )
    split = generate_crossval_split(list(cases), seed=_SEED, n_splits=N_FOLDS)[fold]
    return Fold(tuple(map(str, split["train"])), tuple(map(str, split["val"])))
