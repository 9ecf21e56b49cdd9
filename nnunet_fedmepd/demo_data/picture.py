"""An overview picture: one row a case, the four modalities and the labels in the axial slice through the tumour."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK
from jaxtyping import Shaped

from nnunet_fedmepd.demo_data.generate import TABLE_FILE
from nnunet_fedmepd.demo_data.layouts import LAYOUTS, Layout
from nnunet_fedmepd.errors import ConfigurationError, DatasetError
from nnunet_fedmepd.modalities import BRATS_LABELS, BRATS_MODALITIES
from nnunet_fedmepd.pictures import (
    draw_image,
    draw_labels,
    find_brain_box,
    find_tumour_slice,
    new_case_grid,
    save_png,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL_INCHES = 1.7


@dataclass(frozen=True, eq=False)
class _Slice:
    """An axial slice of one case: modality -> image, and the labels with the values of `BRATS_LABELS`."""

    title: str
    images: dict[str, Shaped[np.ndarray, "Y X"]]
    labels: Shaped[np.ndarray, "Y X"]


def check_picture_file(file: Path) -> None:
    """Raise ConfigurationError unless `file` ends in `.png`."""
    if file.suffix.lower() != ".png":
        raise ConfigurationError(f"Demo data: picture: expected a file name that ends in .png; found {file}.")


def draw_overview(data: Path, file: Path, cases: int = 4) -> Path:
    """Draw some cases of a generated data set, from as many sites as possible.

    Args:
        data: the data set's folder or its `site_mapping.csv`.
        file: the PNG file to write.
        cases: how many cases to draw at most.

    Raises:
        DatasetError: the table of cases, or a file of a case, is missing.
        ConfigurationError: `file` is no PNG file or `cases` is below 1.
    """
    check_picture_file(file)
    if cases < 1:
        raise ConfigurationError(f"Demo data: picture: expected at least 1 case; found {cases}.")
    table = data / TABLE_FILE if data.is_dir() else data
    slices = [_read_slice(table.parent, row) for row in _choose_cases(_read_table(table), cases)]
    save_png(_draw(slices), file)
    return file


def _read_table(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        raise DatasetError(
            "There is no table of generated cases", file=table, remedy="generate the data with `fedmepd demo-data`"
        )
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _choose_cases(rows: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    """Return the first case of each site, then the second of each, and so on."""
    by_site: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_site.setdefault(row["site"], []).append(row)
    turns = zip_longest(*by_site.values())
    return [row for turn in turns for row in turn if row is not None][:count]


def _read_slice(out: Path, row: dict[str, str]) -> _Slice:
    folder, case = out / row["folder"], row["case"]
    layout = _find_layout(folder)
    labels = _decode_labels(_read_voxels(folder / layout.name_labels(case), case), layout)
    images = {m: _read_voxels(folder / layout.name_image(case, m), case) for m in BRATS_MODALITIES}
    shown = (find_tumour_slice(labels), *find_brain_box(images["FLAIR"]))
    return _Slice(
        title=f"{row['site']} · {row['grade']}",
        images={modality: image[shown] for modality, image in images.items()},
        labels=labels[shown],
    )


def _find_layout(folder: Path) -> Layout:
    for layout in LAYOUTS.values():
        if layout.root in folder.parts:
            return layout
    roots = [layout.root for layout in LAYOUTS.values()]
    raise DatasetError("The case lies in no known layout", file=folder, expected=f"a folder below one of {roots}")


def _read_voxels(file: Path, case: str) -> Shaped[np.ndarray, "Z Y X"]:
    if not file.is_file():
        raise DatasetError("A file of a case is missing", case=case, file=file, remedy="generate the data again")
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def _decode_labels(labels: Shaped[np.ndarray, "Z Y X"], layout: Layout) -> Shaped[np.ndarray, "Z Y X"]:
    return np.where(labels == layout.enhancing_value, BRATS_LABELS["enhancing_tumor"], labels)


def _draw(slices: list[_Slice]) -> Figure:
    figure, panels = new_case_grid(len(slices), (*BRATS_MODALITIES, "labels"), _PANEL_INCHES)
    for row, shown in zip(panels, slices, strict=True):
        _draw_row(row, shown)
    return figure


def _draw_row(row: np.ndarray, shown: _Slice) -> None:
    for panel, image in zip(row, shown.images.values(), strict=False):
        draw_image(panel, image)
    overlay = row[-1]
    draw_image(overlay, shown.images["FLAIR"])
    draw_labels(overlay, shown.labels)
    row[0].set_ylabel(shown.title, color="white", fontsize=9)
