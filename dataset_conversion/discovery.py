"""The cases of a BraTS release on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dataset_conversion.layouts import Layout
from nnunet_fedmepd.errors import DatasetError

_ENDINGS = (".nii.gz", ".nii")  # as released, and as some re-distributions unpack it
_LEVELS = 3  # two folders around the release, and HGG or LGG


@dataclass(frozen=True)
class Case:
    """One case of a release.

    Args:
        name: the name of its folder.
        folder: where it lies.
        scans: canonical modality -> file, of the scans that exist, in canonical order.
        segmentation: the segmentation's file, None where there is none.
    """

    name: str
    folder: Path
    scans: Mapping[str, Path]
    segmentation: Path | None


def find_cases(layout: Layout, source: Path) -> dict[str, Case]:
    """Return the cases of a release by name, sorted.

    Args:
        layout: the release.
        source: its folder, or a folder that holds it one or two levels deeper.

    Raises:
        DatasetError: no such folder, no case in it, a case found twice, a scan given twice or as a folder.
    """
    if not source.is_dir():
        raise DatasetError("The source folder does not exist", file=source, remedy="give the folder of the release")
    cases: dict[str, Case] = {}
    for folder in _case_folders(layout, source, _LEVELS):
        if folder.name in cases:
            raise DatasetError(
                "Duplicate case",
                case=folder.name,
                file=folder,
                expected="every case in one folder only",
                found=f"the same case in {cases[folder.name].folder}",
                remedy="remove one of the two, or give a source folder that holds one of them only",
            )
        cases[folder.name] = _read_case(layout, folder)
    if not cases:
        raise DatasetError(
            f"No {layout.title} case in the source folder",
            file=source,
            expected=f"case folders named like {layout.example}, at most {_LEVELS} levels deep",
            found=_some_names(source),
            remedy="check the folder and the layout's name",
        )
    return dict(sorted(cases.items()))


def _case_folders(layout: Layout, folder: Path, levels: int) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        if not child.is_dir() or child.name.startswith((".", "__MACOSX")):
            continue
        if layout.case_pattern.fullmatch(child.name):
            yield child
        elif levels > 0:
            yield from _case_folders(layout, child, levels - 1)


def _read_case(layout: Layout, folder: Path) -> Case:
    name = folder.name
    scans = {m: _find_file(name, folder, layout.scan_name(name, m)) for m in layout.suffixes}
    candidates = (_find_file(name, folder, stem) for stem in layout.possible_segmentation_names(name))
    segmentation = next((file for file in candidates if file), None)
    return Case(name, folder, {m: file for m, file in scans.items() if file}, segmentation)


def _find_file(case: str, folder: Path, stem: str) -> Path | None:
    found = [path for path in (folder / f"{stem}{ending}" for ending in _ENDINGS) if path.exists()]
    if len(found) > 1:
        raise DatasetError(
            "The same scan is given twice",
            case=case,
            file=found[0],
            expected="one file, compressed or not",
            found=f"also {found[1].name}",
            remedy="remove one of the two",
        )
    if found and not found[0].is_file():
        raise DatasetError(
            "A folder has the name of a scan",
            case=case,
            file=found[0],
            expected="a NIfTI file",
            found="a folder",
            remedy="put the file inside it in its place",
        )
    return found[0] if found else None


def _some_names(folder: Path, most: int = 5) -> str:
    names = sorted(child.name for child in folder.iterdir())
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
