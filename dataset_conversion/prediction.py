"""Predictions back to the labels of a BraTS release."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from dataset_conversion.layouts import find_layout
from dataset_conversion.parallel import for_each
from dataset_conversion.partial import check_absent, complete_folder, writing_to
from dataset_conversion.volumes import check_labels, read_volume, relabelled, write_volume
from dataset_conversion.writing import FILE_ENDING
from nnunet_fedmepd.errors import DatasetError


def convert_predictions(
    layout: str, predictions: str | PathLike[str], out: str | PathLike[str], *, workers: int = 1
) -> list[Path]:
    """Write every prediction of a folder with the release's labels; names and geometry stay. Return the files.

    Other files in the folder (nnU-Net's plans, probabilities) are ignored.

    Args:
        layout: name of the release (`LAYOUTS`).
        predictions: folder with `<case>.nii.gz` files as nnU-Net predicts them, labels 0 to 3.
        out: a folder that does not exist yet; it appears when it is complete.
        workers: number of processes.

    Raises:
        ConfigurationError: no such layout.
        DatasetError: no prediction, an unreadable one, an unknown label, output that exists already or cannot be
            written.
    """
    labels = {ours: theirs for theirs, ours in find_layout(layout).labels.items()}
    target = Path(out)
    check_absent(target)
    files = _prediction_files(Path(predictions))
    jobs = [(file, labels) for file in files]
    for_each(_check, jobs, workers=workers, description="Checking predictions")
    with writing_to(target), complete_folder(target) as folder:
        writing = [(file, folder / file.name, labels) for file in files]
        for_each(_write, writing, workers=workers, description="Writing predictions")
    return [target / file.name for file in files]


def _prediction_files(folder: Path) -> list[Path]:
    files = sorted(f for f in folder.glob(f"*{FILE_ENDING}") if f.is_file()) if folder.is_dir() else []
    if not files:
        raise DatasetError(
            "No prediction",
            file=folder,
            expected=f"a folder with files <case>{FILE_ENDING}",
            found="no such file" if folder.is_dir() else "no such folder",
            remedy="give the output folder of nnUNetv2_predict",
        )
    return files


def _check(job: tuple[Path, dict[int, int]]) -> None:
    file, labels = job
    case = file.name.removesuffix(FILE_ENDING)
    check_labels(read_volume(file, case), labels, file, case)


def _write(job: tuple[Path, Path, dict[int, int]]) -> None:
    file, target, labels = job
    prediction = relabelled(read_volume(file, file.name.removesuffix(FILE_ENDING)), labels)
    write_volume(prediction, target)
