"""Small CSV tables with a header, read with the line numbers that messages need."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from nnunet_fedmepd.errors import DatasetError


def read_rows(table: Path, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the line number and the stripped cells (column -> text) of every row that is not empty.

    Raises:
        DatasetError: no such file, not UTF-8 text, or a required column missing.
    """
    if not table.is_file():
        raise DatasetError("The table does not exist", file=table, expected=f"a CSV with columns {','.join(required)}")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = _columns(table, reader.fieldnames or (), required)
            return [
                (reader.line_num, {name: (cell or "").strip() for name, cell in row.items() if isinstance(name, str)})
                for row in reader
            ]
    except UnicodeDecodeError as error:
        raise DatasetError("The table is not text", file=table, expected="UTF-8", found=str(error)) from error


def _columns(table: Path, header: Sequence[str], required: Sequence[str]) -> list[str]:
    columns = [name.strip() for name in header]
    if missing := [name for name in required if name not in columns]:
        raise DatasetError(
            f"The table lacks the column {missing[0]!r}",
            file=table,
            expected=f"a first line with the columns {','.join(required)}, separated by commas",
            found=",".join(columns) or "an empty file",
            remedy="add the column or its name",
        )
    return columns
