"""A site's dataset as it lies in nnUNet_raw, checked before anything is made of it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_fedmepd.errors import ConfigurationError, DatasetError
from nnunet_fedmepd.modalities import ModalityVocabulary
from nnunet_fedmepd.nnunet_plugin.case_problems import for_every_case
from nnunet_fedmepd.nnunet_plugin.declared_labels import declared_labels
from nnunet_fedmepd.nnunet_plugin.modality_plan import federation_section, owned_modalities
from nnunet_fedmepd.nnunet_plugin.preprocessor import check_image_files


@dataclass(frozen=True)
class CaseFiles:
    """The files of one training case: an image per channel, and its label map."""

    images: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class RawDataset:
    """A checked dataset.

    Attributes:
        name: its full nnU-Net name.
        description: its dataset.json.
        modalities: canonical names in the order of its channels.
        labels: every value that its label maps may hold.
        cases: case -> its files.
        reader: nnU-Net's class that reads its images.
    """

    name: str
    description: Mapping[str, Any]
    modalities: tuple[str, ...]
    labels: tuple[int, ...]
    cases: Mapping[str, CaseFiles]
    reader: type[BaseReaderWriter]

    @property
    def folder(self) -> Path:
        """Where the images are."""
        return Path(nnUNet_raw) / self.name

    @property
    def preprocessed(self) -> Path:
        """Where plans and preprocessed cases belong."""
        return Path(nnUNet_preprocessed) / self.name

    def files_digest(self) -> str:
        """Return a SHA-256 of what the files are as far as their names, sizes and times of change tell."""
        states = []
        for case, files in self.cases.items():
            for file in (*files.images, files.label):
                state = Path(file).stat()
                states.append([case, file, state.st_size, state.st_mtime_ns])
        return hashlib.sha256(json.dumps([states, self.modalities]).encode()).hexdigest()


def open_raw_dataset(name_or_id: str | int, vocabulary: ModalityVocabulary) -> RawDataset:
    """Find a dataset and check its description and that it is complete; images are not read, but for one.

    Args:
        name_or_id: full nnU-Net name, or the number.
        vocabulary: the federation's modalities.

    Raises:
        ConfigurationError: an nnU-Net folder is not set, there is no such dataset, or its dataset.json is incomplete.
        ModalityError: a channel is unknown or doubled.
        DatasetError: the labels cannot be used, or files are missing or cannot be read.
    """
    name = _dataset_name(name_or_id)
    folder = Path(nnUNet_raw) / name
    file = folder / "dataset.json"
    description = _description(file)
    federation_section(description, str(file))
    modalities = owned_modalities(description, vocabulary, str(file))
    labels = declared_labels(description, file)
    cases = _cases(folder, description)
    _check_cases(cases, modalities, description, folder)
    example = next(iter(cases.values())).images[0]
    return RawDataset(name, description, modalities, labels, cases, _reader(description, example))


def _dataset_name(name_or_id: str | int) -> str:
    for folder in (nnUNet_raw, nnUNet_preprocessed):
        if not folder.is_set():
            raise ConfigurationError(f"The environment variable {folder.env_var_name} is not set; set it to a folder.")
    try:
        name = str(maybe_convert_to_dataset_name(name_or_id))
    except (RuntimeError, ValueError) as error:
        # nnU-Net goes on for a paragraph about its folders.
        raise ConfigurationError(f"{str(error).split('. ')[0]}, in {Path(nnUNet_raw)} and beside it.") from None
    if not (Path(nnUNet_raw) / name / "dataset.json").is_file():
        raise ConfigurationError(
            f"Dataset {name!r} was not found: expected a folder of this name, with a dataset.json, in "
            f"{Path(nnUNet_raw)}. Create it, or correct the dataset in the federation file."
        )
    return name


def _description(file: Path) -> dict[str, Any]:
    try:
        description = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{file} is not valid JSON: {error}. Correct it.") from None
    if not isinstance(description, dict):
        raise ConfigurationError(f"{file} holds no JSON object, which nnU-Net needs. Correct it.")
    if missing := [key for key in ("labels", "file_ending") if key not in description]:
        raise ConfigurationError(f"{file} has no {' and no '.join(missing)}; nnU-Net needs it. Add it.")
    return description


def _cases(folder: Path, description: Mapping[str, Any]) -> dict[str, CaseFiles]:
    images = folder / "imagesTr"
    if "dataset" not in description and not images.is_dir():
        raise DatasetError("A dataset has no training images", file=images, remedy="put the images there")
    found = get_filenames_of_train_images_and_targets(str(folder), deepcopy(dict(description)))
    return {str(case): CaseFiles(tuple(files["images"]), str(files["label"])) for case, files in found.items()}


def _check_cases(
    cases: Mapping[str, CaseFiles], modalities: tuple[str, ...], description: Mapping[str, Any], folder: Path
) -> None:
    if not cases:
        raise DatasetError("A dataset has no training case", file=folder, remedy="add images to imagesTr")

    def check_files(case: str, files: CaseFiles) -> None:
        check_image_files(files.images, modalities, description["file_ending"])
        if missing := [file for file in (*files.images, files.label) if not Path(file).is_file()]:
            raise DatasetError("A file of a training case is missing", case=case, file=missing[0], remedy="add it")

    for_every_case(cases, check_files)
    stated = description.get("numTraining", len(cases))
    if stated != len(cases):
        raise DatasetError(
            "dataset.json does not state the number of training cases that there are",
            file=folder / "dataset.json",
            expected=f"numTraining {len(cases)}",
            found=stated,
            remedy="correct numTraining, or add the missing cases",
        )


def _reader(description: Mapping[str, Any], example: str) -> type[BaseReaderWriter]:
    # nnU-Net prints the tracebacks of all readers that fail; the error below says it in one line.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return determine_reader_writer_from_dataset_json(dict(description), example, verbose=False)
        except RuntimeError:
            pass
    raise DatasetError(
        "No image reader of nnU-Net can read an image",
        file=example,
        expected=f"a valid image with the ending {description['file_ending']}",
        remedy="replace the file, or correct file_ending in dataset.json",
    )
