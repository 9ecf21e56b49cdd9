"""The generator makes the same cases, voxel by voxel, as the prototype that was tuned by eye and by classifiers.

`prototype_cases.npz` holds two of the prototype's cases: seed 1, 36x44x36 voxels of 4 mm, the first case of two sites.
Where numerical libraries round differently, images may differ by one grey value; labels may not.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from nnunet_fedmepd.demo_data.contrast import MODALITIES
from nnunet_fedmepd.demo_data.phantom import PhantomCase, PhantomSettings, make_case
from nnunet_fedmepd.demo_data.sites import draw_site

PROTOTYPE = Path(__file__).with_name("prototype_cases.npz")


@pytest.fixture(scope="module", params=["HGG", "LGG"])
def both(request: pytest.FixtureRequest) -> tuple[dict[str, np.ndarray], PhantomCase]:
    with np.load(PROTOTYPE) as stored:
        expected = {key.split("/")[1]: stored[key] for key in stored if key.startswith(request.param)}
    site = draw_site(seed=1, index=int(expected["site_index"]), heterogeneity=1.0)
    return expected, make_case(1, site, 0, PhantomSettings((36, 44, 36), 4.0))


def test_labels_are_identical(both: tuple[dict[str, np.ndarray], PhantomCase]) -> None:
    expected, made = both
    np.testing.assert_array_equal(made.labels, expected["labels"])


@pytest.mark.parametrize("modality", MODALITIES)
def test_images_are_identical_up_to_rounding(both: tuple[dict[str, np.ndarray], PhantomCase], modality: str) -> None:
    expected, made = both
    assert made.images[modality].dtype == np.int16
    np.testing.assert_allclose(made.images[modality].astype(int), expected[modality].astype(int), rtol=0, atol=1)


def test_patients_are_described_alike(both: tuple[dict[str, np.ndarray], PhantomCase]) -> None:
    expected, made = both
    assert asdict(made.record) == json.loads(str(expected["record"]))
