"""How each BraTS release names its folders, files and labels: one table.

A release is a tree of case folders, each named after its case, in the release's own folder (`HGG` and `LGG` inside it
in 2018). A case folder holds one file per scan and the segmentation, `<case><separator><suffix>.nii.gz` or `.nii`.

The pattern of 2023 covers all later challenges with the labels 1, 2, 3 (GLI, SSA, ...). Where a challenge adds a label
4, such as the resection cavity of post-treatment data, it is refused like any unknown label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nnunet_fedmepd.errors import ConfigurationError

_SUFFIXES_TO_2021 = {"T1": "t1", "T1ce": "t1ce", "T2": "t2", "FLAIR": "flair"}
_SUFFIXES_FROM_2023 = {"T1": "t1n", "T1ce": "t1c", "T2": "t2w", "FLAIR": "t2f"}
_LABELS_TO_2021 = {0: 0, 1: 1, 2: 2, 4: 3}
_LABELS_FROM_2023 = {0: 0, 1: 1, 2: 2, 3: 3}


@dataclass(frozen=True)
class Layout:
    """One BraTS release.

    Args:
        name: what the command line calls it.
        title: start of the names of its nnU-Net datasets.
        case_pattern: regular expression of a case's name. Group `institution` gives the contributing institution,
            `number` the running number and `patient` the patient, where the name tells.
        example: a case's name, for messages.
        suffixes: canonical modality -> end of the scan's file name, in canonical order.
        labels: label of the release -> consecutive label of our datasets.
        separator: between case name and suffix.
        segmentation_names: case -> file name (without ending) of a segmentation that breaks the rule.
    """

    name: str
    title: str
    case_pattern: re.Pattern[str]
    example: str
    suffixes: Mapping[str, str]
    labels: Mapping[int, int]
    separator: str = "_"
    segmentation_names: Mapping[str, str] = field(default_factory=dict)

    def scan_name(self, case: str, modality: str) -> str:
        """Return the file name, without its ending, of one scan of a case."""
        return f"{case}{self.separator}{self.suffixes[modality]}"

    def possible_segmentation_names(self, case: str) -> tuple[str, ...]:
        """Return the file names, without their ending, that the segmentation of a case can have; the rule first."""
        regular = f"{case}{self.separator}seg"
        return (regular, self.segmentation_names[case]) if case in self.segmentation_names else (regular,)

    def part_of_name(self, part: str, case: str) -> str | None:
        """Return the `institution`, `number` or `patient` in a case's name, None where the name does not tell."""
        match = self.case_pattern.fullmatch(case)
        return match.groupdict().get(part) if match else None

    def patient(self, case: str) -> str:
        """Return what all cases of one patient share: from 2023 on a patient can come with several time points."""
        return self.part_of_name("patient", case) or case


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            name="brats2018",
            title="BraTS2018",
            case_pattern=re.compile(r"Brats18_(?P<institution>[A-Za-z0-9]+)_(?P<number>[A-Za-z0-9]+)_\d+"),
            example="Brats18_CBICA_AAB_1",
            suffixes=_SUFFIXES_TO_2021,
            labels=_LABELS_TO_2021,
        ),
        Layout(
            name="brats2020",
            title="BraTS2020",
            case_pattern=re.compile(r"BraTS20_Training_(?P<number>\d{3})"),
            example="BraTS20_Training_001",
            suffixes=_SUFFIXES_TO_2021,
            labels=_LABELS_TO_2021,
            segmentation_names={"BraTS20_Training_355": "W39_1998.09.19_Segm"},
        ),
        Layout(
            name="brats2021",
            title="BraTS2021",
            case_pattern=re.compile(r"BraTS2021_(?P<number>\d{5})"),
            example="BraTS2021_00000",
            suffixes=_SUFFIXES_TO_2021,
            labels=_LABELS_TO_2021,
        ),
        Layout(
            name="brats2023",
            title="BraTS2023",
            case_pattern=re.compile(r"(?P<patient>BraTS-[A-Za-z]+-(?P<number>\d{5}))(?:-\d{3})?"),
            example="BraTS-GLI-00000-000",
            suffixes=_SUFFIXES_FROM_2023,
            labels=_LABELS_FROM_2023,
            separator="-",
        ),
    )
}


def find_layout(name: str) -> Layout:
    """Return the layout called `name`.

    Raises:
        ConfigurationError: there is no such layout.
    """
    if name not in LAYOUTS:
        raise ConfigurationError(f"Unknown BraTS layout {name!r}: expected one of {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]
