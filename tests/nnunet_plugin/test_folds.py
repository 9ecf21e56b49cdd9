"""Which cases a fold takes, and what is said when it cannot be made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.nnunet_plugin.folds import Fold, find_fold


def preprocessed(dataset: Path, n_cases: int) -> Path:
    data = dataset / "data"
    data.mkdir()
    for case in (f"case{i}" for i in range(n_cases)):
        for ending in (".b2nd", "_seg.b2nd", ".pkl"):
            (data / f"{case}{ending}").touch()
    return data


def test_given_splits_are_taken_and_all_is_everything(tmp_path):
    data = preprocessed(tmp_path, 3)
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["case2"], "val": ["case0"]}]))
    assert find_fold(tmp_path, data, 0) == Fold(("case2",), ("case0",), left_out=("case1",))
    assert find_fold(tmp_path, data, "all") == Fold(("case0", "case1", "case2"), ("case0", "case1", "case2"))


def test_without_given_splits_the_folds_are_those_that_nnunet_will_make(tmp_path):
    fold = find_fold(tmp_path, preprocessed(tmp_path, 10), 3)
    assert fold.val == ("case1", "case8")  # what nnU-Net 2.8.1 chose for ten cases of these names
    assert len(fold.train) == 8
    assert fold.left_out == ()


@pytest.mark.parametrize(
    ("splits", "fold", "message"),
    [
        (None, 0, "4 training cases cannot be divided into nnU-Net's 5 folds"),
        ([{"train": ["case0"], "val": ["case1"]}], 1, "has no fold 1, only 0 to 0"),
        ([{"train": ["case0"], "val": []}], 0, "is not usable"),
        ([{"train": ["case0"], "val": ["case9"]}], 0, "is not usable"),
    ],
)
def test_a_fold_that_cannot_be_trained_is_refused(tmp_path, splits, fold, message):
    data = preprocessed(tmp_path, 4)
    if splits is not None:
        (tmp_path / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(ConfigurationError, match=message):
        find_fold(tmp_path, data, fold)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"train": ["case0"], "val": ["ca', r"splits_final\.json is no valid JSON"),
        ('[{"train": ["case0"]}]', r"Fold 0 of .*splits_final\.json cannot be read: expected .*`train` and `val`"),
        ('[["case0"]]', r"Fold 0 of .*splits_final\.json cannot be read"),
        ('{"train": ["case0"], "val": ["case1"]}', r"Fold 0 of .*splits_final\.json cannot be read"),
    ],
)
def test_a_damaged_file_of_splits_is_named(tmp_path, content, message):
    (tmp_path / "splits_final.json").write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        find_fold(tmp_path, preprocessed(tmp_path, 4), 0)
