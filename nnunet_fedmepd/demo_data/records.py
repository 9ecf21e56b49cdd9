"""What the table of cases says about each case, kept in one small file a case until the table is written.

A case is complete when its record exists: it is written last.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nnunet_fedmepd.demo_data.layouts import Layout
from nnunet_fedmepd.demo_data.phantom import PatientRecord
from nnunet_fedmepd.demo_data.writing import write_text


@dataclass(frozen=True)
class CaseRecord:
    """One row of `site_mapping.csv`.

    Args:
        case: identifier, the name of the case's folder.
        site: name of its site.
        split: `train`, `val` or `test`.
        folder: the case's folder, relative to the data set's.
        site_index, case_index: its site's number and its number within the site, from 0.
        patient: what is known about the patient.
    """

    case: str
    site: str
    split: str
    folder: str
    site_index: int
    case_index: int
    patient: PatientRecord

    @classmethod
    def columns(cls) -> list[str]:
        """Return the columns of the table."""
        own = [field.name for field in fields(cls) if field.name != "patient"]
        return [*own, *(field.name for field in fields(PatientRecord))]

    def to_row(self) -> dict[str, object]:
        """Return the values of the table's columns."""
        row = asdict(self)
        return row | row.pop("patient")

    @classmethod
    def from_row(cls, row: dict) -> CaseRecord:
        """Return the record with the values of `row`."""
        own = {field.name: row[field.name] for field in fields(cls) if field.name != "patient"}
        patient = PatientRecord(**{field.name: row[field.name] for field in fields(PatientRecord)})
        return cls(**own, patient=patient)


def write_record(out: Path, record: CaseRecord) -> None:
    """Mark a case as complete."""
    write_text(_locate(out, record.case), json.dumps(record.to_row(), indent=1) + "\n")


def read_record(out: Path, case: str, layout: Layout) -> CaseRecord | None:
    """Return the record of a case, or None if the case, or one of its files, is still to be made."""
    file = _locate(out, case)
    if not file.exists():
        return None
    record = CaseRecord.from_row(json.loads(file.read_text(encoding="utf-8")))
    folder = out / record.folder
    return record if all((folder / name).is_file() for name in layout.name_files(case)) else None


def _locate(out: Path, case: str) -> Path:
    return out / "case_records" / f"{case}.json"
