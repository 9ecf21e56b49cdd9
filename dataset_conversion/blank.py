"""Blank images for scans that a case to predict lacks, since nnU-Net expects every channel of every case."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import SimpleITK

from dataset_conversion.partial import discarded_folder, writing_to
from dataset_conversion.volumes import Geometry, write_blank
from nnunet_fedmepd.errors import DatasetError


def fill_missing(folder: str | PathLike[str], dataset_json: str | PathLike[str]) -> dict[str, list[str]]:
    """Write a blank image for every channel that a case of `folder` lacks; return case -> channel names so filled.

    The blank image has the geometry of the case's other images. Every case is checked before the first is filled.

    Args:
        folder: images to predict, `<case>_0000<ending>`, `<case>_0001<ending>`, ...
        dataset_json: the description of the dataset that the model was trained on.

    Raises:
        DatasetError: no image in the folder, an image that is unreadable, off its case's grid, or of a channel that
            the dataset does not have, a `dataset.json` that cannot be read, or no room or permission to write.
    """
    folder = Path(folder)
    channels, ending = _read_description(Path(dataset_json))
    cases = _images_by_case(folder, channels, ending)
    for case, images in cases.items():
        _check_grid(case, images)
    missing = {case: [n for n in range(len(channels)) if n not in images] for case, images in cases.items()}
    with writing_to(folder), discarded_folder(folder / ".fill-missing.partial") as temporary:
        for case, numbers in missing.items():
            for number in numbers:
                name = f"{case}_{number:04d}{ending}"
                write_blank(next(iter(cases[case].values())), temporary / name)
                os.replace(temporary / name, folder / name)
    return {case: [channels[n] for n in numbers] for case, numbers in missing.items() if numbers}


def _read_description(file: Path) -> tuple[list[str], str]:
    """Return the channel names in the order of their numbers, and the images' file ending."""
    try:
        description: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        names: Mapping[str, str] = description["channel_names"]
        return [names[number] for number in sorted(names, key=int)], description["file_ending"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            "Not a dataset description",
            file=file,
            expected="nnU-Net's dataset.json with channel_names and file_ending",
            found=f"{type(error).__name__}: {error}",
        ) from error


def _images_by_case(folder: Path, channels: list[str], ending: str) -> dict[str, dict[int, Path]]:
    pattern = re.compile(rf"(?P<case>.+)_(?P<channel>\d{{4}}){re.escape(ending)}")
    files = sorted(f for f in folder.glob(f"*{ending}") if f.is_file()) if folder.is_dir() else []
    if not files:
        raise DatasetError(
            "No image to take the geometry from",
            file=folder,
            expected=f"at least one image <case>_0000{ending} ... <case>_{len(channels) - 1:04d}{ending} of every case",
            found="no such image" if folder.is_dir() else "no such folder",
        )
    cases: dict[str, dict[int, Path]] = defaultdict(dict)
    for file in files:
        match = pattern.fullmatch(file.name)
        if not match or int(match["channel"]) >= len(channels):
            raise DatasetError(
                "Not an image of a channel",
                case=match["case"] if match else None,
                file=file,
                expected=", ".join(f"_{n:04d}{ending} ({name})" for n, name in enumerate(channels)),
                found=f"_{match['channel']}{ending}" if match else file.name,
                remedy="rename the file or move it elsewhere",
            )
        cases[match["case"]][int(match["channel"])] = file
    return dict(cases)


def _check_grid(case: str, images: Mapping[int, Path]) -> None:
    first, *others = images.values()
    geometry = _geometry(case, first)
    for file in others:
        if difference := geometry.first_difference(_geometry(case, file)):
            name, expected, found = difference
            raise DatasetError(
                f"Different {name} within a case",
                case=case,
                file=file,
                expected=f"{name} {expected} as in {first.name}",
                found=f"{name} {found}",
            )


def _geometry(case: str, file: Path) -> Geometry:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DatasetError(
            "Unreadable image", case=case, file=file, found=str(error).strip().splitlines()[-1]
        ) from error
    return Geometry.of(reader)
