"""Tables of scores on disk."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.tables import CaseScore, read_scores, write_scores

SCORE = CaseScore(
    "a, the first", "case 1", "T1+T2", "whole_tumor", 0.1 + 0.2, 374.0, 1 / 3, 12.5, 0.0, "0123456789abcdef"
)


def test_what_is_read_is_what_was_written_to_the_last_digit(tmp_path) -> None:
    scores = [SCORE, replace(SCORE, case="case 2", made_of="1234567890123456")]
    write_scores(tmp_path / "new" / "cases.csv", scores)
    assert read_scores(tmp_path / "new" / "cases.csv") == scores


def test_no_file_is_an_empty_table(tmp_path) -> None:
    assert read_scores(tmp_path / "cases.csv") == []


@pytest.mark.parametrize("damage", [("hd95_mm", "hausdorff"), ("374.0", "far"), (",0123456789abcdef", "")])
def test_another_table_is_refused_with_its_name(tmp_path, damage) -> None:
    file = tmp_path / "cases.csv"
    write_scores(file, [SCORE])
    file.write_text(file.read_text().replace(*damage))
    with pytest.raises(DatasetError, match=r"cases\.csv"):
        read_scores(file)
