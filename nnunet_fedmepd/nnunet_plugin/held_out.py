"""The cases of a dataset that a site did not train on: test cases (imagesTs), or the validation cases of a fold."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

from nnunet_fedmepd.errors import ConfigurationError, DatasetError
from nnunet_fedmepd.modalities import ModalityVocabulary
from nnunet_fedmepd.nnunet_plugin.folds import Fold, read_fold, splits_file
from nnunet_fedmepd.nnunet_plugin.modality_plan import owned_modalities
from nnunet_fedmepd.nnunet_plugin.preprocessor import check_image_files
from nnunet_fedmepd.nnunet_plugin.raw_dataset import open_raw_dataset


@dataclass(frozen=True)
class HeldOutCase:
    """A case to predict and to score.

    Attributes:
        name: identifier.
        images: canonical modality -> its image.
        reference: its label map.
    """

    name: str
    images: Mapping[str, Path]
    reference: Path

    def digest(self) -> str:
        """Return a SHA-256 of the images and the reference."""
        digest = hashlib.sha256()
        for name, file in (*self.images.items(), ("", self.reference)):
            digest.update(name.encode() + hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()


@dataclass(frozen=True)
class HeldOut:
    """What a dataset holds out.

    Attributes:
        cases: with a reference, by name.
        without_reference: names of the cases that cannot be scored.
        description: dataset.json.
    """

    cases: tuple[HeldOutCase, ...]
    without_reference: tuple[str, ...]
    description: Mapping[str, Any]


def find_test_cases(dataset: str, vocabulary: ModalityVocabulary) -> HeldOut:
    """Return the cases of a dataset's imagesTs; there may be none.

    Args:
        dataset: full nnU-Net name.
        vocabulary: the federation's modalities.

    Raises:
        ConfigurationError: the dataset is not in nnUNet_raw.
        DatasetError: a case lacks an image.
    """
    folder = _raw_folder(dataset)
    description = json.loads((folder / "dataset.json").read_text("utf-8"))
    ending = description["file_ending"]
    modalities = owned_modalities(description, vocabulary, str(folder / "dataset.json"))
    by_case: dict[str, list[Path]] = defaultdict(list)
    for file in sorted((folder / "imagesTs").glob(f"*{ending}")):
        by_case[file.name.removesuffix(ending)[: -len("_0000")]].append(file)
    cases = [
        _case(name, files, modalities, ending, folder / "labelsTs" / f"{name}{ending}")
        for name, files in by_case.items()
    ]
    scored = tuple(case for case in cases if case.reference.is_file())
    return HeldOut(scored, tuple(case.name for case in cases if not case.reference.is_file()), description)


def find_validation_cases(dataset: str, vocabulary: ModalityVocabulary, fold: int) -> HeldOut:
    """Return the training cases that a fold left out for model choice.

    Args:
        dataset: full nnU-Net name.
        vocabulary: the federation's modalities.
        fold: of nnU-Net.

    Raises:
        ConfigurationError: the dataset is not in nnUNet_raw, has no splits yet, or they are damaged.
        DatasetError: the splits name a case that the dataset does not have.
    """
    if not nnUNet_preprocessed.is_set():
        raise ConfigurationError("The environment variable nnUNet_preprocessed is not set; the splits lie there.")
    file = splits_file(Path(str(nnUNet_preprocessed)) / dataset)
    if not file.is_file():
        raise ConfigurationError(f"{file} does not exist: no fold of {dataset} was ever trained.")
    return validation_cases(dataset, vocabulary, read_fold(file, fold))


def validation_cases(dataset: str, vocabulary: ModalityVocabulary, fold: Fold) -> HeldOut:
    """Return the training cases that a known fold leaves out for model choice.

    Args:
        dataset: full nnU-Net name.
        vocabulary: the federation's modalities.
        fold: of the dataset.

    Raises:
        ConfigurationError: the dataset is not in nnUNet_raw.
        DatasetError: the fold names a case that the dataset does not have.
    """
    raw = open_raw_dataset(dataset, vocabulary)
    ending = raw.description["file_ending"]
    if unknown := sorted(set(fold.val) - set(raw.cases)):
        raise DatasetError(
            "The splits name a case that the dataset does not have",
            case=unknown[0],
            file=raw.folder,
            remedy=f"add the case, or correct {splits_file(raw.preprocessed)}, and splits_final.json in {raw.folder} "
            "if there is one",
        )
    cases = tuple(
        _case(name, [Path(image) for image in files.images], raw.modalities, ending, Path(files.label))
        for name, files in sorted(raw.cases.items())
        if name in fold.val
    )
    return HeldOut(cases, (), raw.description)


def _case(name: str, images: Sequence[Path], modalities: Sequence[str], ending: str, reference: Path) -> HeldOutCase:
    check_image_files([str(image) for image in images], modalities, ending)
    return HeldOutCase(name, dict(zip(modalities, images, strict=True)), reference)


def _raw_folder(dataset: str) -> Path:
    if not nnUNet_raw.is_set():
        raise ConfigurationError(
            "The environment variable nnUNet_raw is not set; set it to the folder of the datasets."
        )
    folder = Path(str(nnUNet_raw)) / dataset
    if not (folder / "dataset.json").is_file():
        raise ConfigurationError(
            f"Dataset {dataset!r} was not found: expected a folder of this name, with a dataset.json, in "
            f"{Path(str(nnUNet_raw))}. Set nnUNet_raw to the folder that the run was trained from."
        )
    return folder
