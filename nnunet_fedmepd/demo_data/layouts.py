"""Folder layouts, file names and label values of the BraTS challenges, one entry a year."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from string import ascii_uppercase

import numpy as np
from jaxtyping import UInt8

from nnunet_fedmepd.modalities import BRATS_LABELS

# Two letters number the cases of the institutions that BraTS 2018 numbers by letters.
MOST_CASES_PER_SITE = len(ascii_uppercase) ** 2
_LETTERED_INSTITUTIONS = ("CBICA", "TMC")


def identify_brats2018(site_name: str, case_index: int) -> str:
    """Return the BraTS 2018 identifier, such as `Brats18_TCIA01_3_1` or `Brats18_CBICA_AAC_1`, of a site's case."""
    if site_name in _LETTERED_INSTITUTIONS:
        first, second = divmod(case_index, len(ascii_uppercase))
        return f"Brats18_{site_name}_A{ascii_uppercase[first]}{ascii_uppercase[second]}_1"
    return f"Brats18_{site_name}_{case_index + 1}_1"


@dataclass(frozen=True)
class Layout:
    """How one year's challenge lays out its training data.

    Args:
        root: folder that holds all cases.
        by_grade: whether cases lie in folders `HGG` and `LGG` below the root.
        suffixes: modality -> what follows the case identifier in the file name.
        labels_suffix: the same for the label map.
        enhancing_value: value of enhancing tumour in the label map; the others are those of `BRATS_LABELS`.
        identify: (site name, index within the site, index within the data set) -> case identifier.
    """

    root: str
    by_grade: bool
    suffixes: Mapping[str, str]
    labels_suffix: str
    enhancing_value: int
    identify: Callable[[str, int, int], str]

    def locate(self, case: str, grade: str) -> PurePosixPath:
        """Return the case's folder, relative to the data set's."""
        return PurePosixPath(self.root, grade, case) if self.by_grade else PurePosixPath(self.root, case)

    def name_image(self, case: str, modality: str) -> str:
        """Return the file name of an image."""
        return f"{case}{self.suffixes[modality]}.nii.gz"

    def name_labels(self, case: str) -> str:
        """Return the file name of the label map."""
        return f"{case}{self.labels_suffix}.nii.gz"

    def name_files(self, case: str) -> list[str]:
        """Return the names of all files of a case."""
        return [*(self.name_image(case, modality) for modality in self.suffixes), self.name_labels(case)]

    def encode_labels(self, labels: UInt8[np.ndarray, "Z Y X"]) -> UInt8[np.ndarray, "Z Y X"]:
        """Return the label map with this challenge's values."""
        return np.where(labels == BRATS_LABELS["enhancing_tumor"], self.enhancing_value, labels).astype(np.uint8)


_SUFFIXES_TO_2020 = {"FLAIR": "_flair", "T1": "_t1", "T1ce": "_t1ce", "T2": "_t2"}
_SUFFIXES_FROM_2023 = {"FLAIR": "-t2f", "T1": "-t1n", "T1ce": "-t1c", "T2": "-t2w"}

LAYOUTS: dict[str, Layout] = {
    "brats2018": Layout(
        root="MICCAI_BraTS_2018_Data_Training",
        by_grade=True,
        suffixes=_SUFFIXES_TO_2020,
        labels_suffix="_seg",
        enhancing_value=4,
        identify=lambda site_name, case_index, _: identify_brats2018(site_name, case_index),
    ),
    "brats2020": Layout(
        root="MICCAI_BraTS2020_TrainingData",
        by_grade=False,
        suffixes=_SUFFIXES_TO_2020,
        labels_suffix="_seg",
        enhancing_value=4,
        identify=lambda _site, _case, index: f"BraTS20_Training_{index + 1:03d}",
    ),
    "brats2023": Layout(
        root="ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData",
        by_grade=False,
        suffixes=_SUFFIXES_FROM_2023,
        labels_suffix="-seg",
        enhancing_value=3,
        identify=lambda _site, _case, index: f"BraTS-GLI-{index:05d}-000",
    ),
}
