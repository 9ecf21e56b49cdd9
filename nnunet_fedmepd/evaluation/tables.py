"""The tables of an evaluation as CSV files: one row per site, case, shown modalities and region.

RUN/evaluation/CHECKPOINT/cases.csv             every site's model on its own held-out cases
RUN/evaluation/CHECKPOINT/subsets.csv           the lead's model on every subset of its modalities
RUN/evaluation/CHECKPOINT/predictions/SITE/     label maps, one a case of cases.csv, named as nnU-Net names them

CHECKPOINT is `final` or `best`; `final_val` or `best_val` where validation cases are scored instead of test cases; and
`final_large` or `best_large` where small components are dropped from the predictions (see `small_components`).

RUN/evaluation/CHECKPOINT_val/small_components.json    what counts as small, chosen on these cases
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.federation.storage import write_atomically

CHECKPOINTS = ("final", "best")
SPLITS = ("test", "val")
METRICS = {"dice": "Dice", "hd95_mm": "HD95 (mm)", "lesion_dice": "lesion Dice"}
"""Column of a metric -> its name."""


@dataclass(frozen=True)
class CaseScore:
    """The scores of one region of one predicted case; each field is a column.

    Attributes:
        site: whose model predicted, on its own case.
        case: identifier.
        modalities: what the model was shown, canonical names joined by `+`.
        region: name, such as `whole_tumor`.
        dice: 0 to 1.
        hd95_mm: Hausdorff distance, 95th percentile.
        lesion_dice: mean over lesions, 0 to 1.
        reference_ml, prediction_ml: volumes of the region.
        made_of: digest of the model, the images and the reference: the row holds as long as these are the same.
    """

    site: str
    case: str
    modalities: str
    region: str
    dice: float
    hd95_mm: float
    lesion_dice: float
    reference_ml: float
    prediction_ml: float
    made_of: str


COLUMNS = tuple(field.name for field in fields(CaseScore))
_NUMBERS = tuple(field.name for field in fields(CaseScore) if field.type == "float")


@dataclass(frozen=True)
class EvaluationFolder:
    """Where the evaluation of one checkpoint of a run lies.

    Args:
        run: the run's folder.
        checkpoint: `final` or `best`.
        split: `test` or `val`.
        large_only: small components are dropped from the predictions.
    """

    run: Path
    checkpoint: str = "final"
    split: str = "test"
    large_only: bool = False

    @property
    def path(self) -> Path:
        """The folder itself."""
        split, large = "_val" if self.split == "val" else "", "_large" if self.large_only else ""
        return self.run / "evaluation" / (self.checkpoint + split + large)

    @property
    def limits(self) -> Path:
        """What counts as a small component of this checkpoint's predictions."""
        return replace(self, split="val", large_only=False).path / "small_components.json"

    @property
    def cases(self) -> Path:
        """The table of all sites' held-out cases."""
        return self.path / "cases.csv"

    @property
    def subsets(self) -> Path:
        """The table of the lead's cases under every subset of the modalities."""
        return self.path / "subsets.csv"

    def other_checkpoints(self) -> list[EvaluationFolder]:
        """Return where the run's other checkpoints are evaluated, on the same cases."""
        return [replace(self, checkpoint=other) for other in CHECKPOINTS if other != self.checkpoint]

    def predictions(self, site: str) -> Path:
        """Return where a site's predicted label maps are."""
        return self.path / "predictions" / site


def write_scores(file: Path, scores: Iterable[CaseScore]) -> None:
    """Write a table, atomically.

    Raises:
        StateFileError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(score) for score in scores)
    write_atomically(file, text.getvalue().encode())


def read_scores(file: Path) -> list[CaseScore]:
    """Return the rows of a table; none where the file does not exist.

    Raises:
        DatasetError: the file is not such a table.
    """
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise _unreadable(file, ",".join(COLUMNS), ",".join(rows.fieldnames or ()))
        return [_score(row, file, rows.line_num) for row in rows]


def _score(row: dict[str, str], file: Path, line: int) -> CaseScore:
    try:
        if None in row.values():
            raise ValueError("a line is too short")
        return CaseScore(**{name: float(text) if name in _NUMBERS else text for name, text in row.items()})  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise _unreadable(file, f"a score in line {line}", ",".join(map(str, row.values()))) from None


def _unreadable(file: Path, expected: str, found: str) -> DatasetError:
    return DatasetError(
        "This is no table of scores",
        file=file,
        expected=expected,
        found=found,
        remedy="remove the file; `fedmepd evaluate` makes it anew",
    )
