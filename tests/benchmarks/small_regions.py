"""What Dice would be if a predicted region smaller than some millilitres counted as none.

    python -m tests.benchmarks.small_regions OUT/comparison.csv --lead SITE [--millilitres 0.3]

Where the reference has no such region, a single predicted voxel makes Dice 0 and none makes it 1. nnU-Net's own entry
to BraTS 2020 drops small enhancing tumours for that reason (Isensee et al., nnU-Net for Brain Tumor Segmentation).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

KEYS = ["checkpoint", "method", "seed", "site", "case"]


def drop_small(scores: pd.DataFrame, region: str, millilitres: float) -> pd.DataFrame:
    """Return scores with every prediction of a region that is smaller counted as empty.

    Args:
        scores: rows of comparison.csv.
        region: name.
        millilitres: a prediction of less counts as none; 0 changes nothing.
    """
    small = (scores.region == region) & (scores.prediction_ml > 0) & (scores.prediction_ml < millilitres)
    return scores.assign(dice=scores.dice.mask(small, (scores.reference_ml == 0).astype(float)))


def site_means(scores: pd.DataFrame, lead: str) -> pd.DataFrame:
    """Return Dice, mean over regions and cases, of every site, and the mean of sites without the lead."""
    table = scores.groupby(KEYS).dice.mean().groupby(KEYS[:-1]).mean().unstack("site")
    return table.assign(**{"mean of sites": table.drop(columns=lead).mean(axis=1)})


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--lead", required=True)
    parser.add_argument("--region", default="enhancing_tumor")
    parser.add_argument("--millilitres", type=float, default=0.3)
    args = parser.parse_args()
    scores = pd.read_csv(args.file)
    for limit in (0.0, args.millilitres):
        print(f"\n{args.region} of less than {limit:g} ml counts as none")
        print(site_means(drop_small(scores, args.region, limit), args.lead).round(3).to_string())


if __name__ == "__main__":
    main()
