from __future__ import annotations

from importlib.resources import files

import numpy as np

from nnunet_fedmepd.demo_data.atlas import load_atlas

PACKAGE = files("nnunet_fedmepd.demo_data")


def test_the_notice_beside_the_anatomy_is_the_one_stored_in_it() -> None:
    with (PACKAGE / "anatomy_mni152.npz").open("rb") as file, np.load(file) as stored:
        notice = str(stored["notice"])
    assert (PACKAGE / "ANATOMY_NOTICE.txt").read_text(encoding="utf-8") == notice
    assert "Copyright" in notice


def test_tissue_fractions_never_exceed_the_whole() -> None:
    tissues = load_atlas().tissues
    assert tissues.min() == 0
    assert tissues.max() <= 1
    assert tissues.sum(0).max() < 1.05  # the template itself is not exact


def test_the_scaled_brain_has_an_adults_volume() -> None:
    atlas = load_atlas()
    brain_mm3 = (atlas.tissues.sum(0) > 0.5).sum() * atlas.adult_scale**3
    np.testing.assert_allclose(brain_mm3, 1350e3)


def test_ventricles_lie_near_the_middle() -> None:
    _, _, x_mm = load_atlas().ventricle_centre_mm
    assert abs(x_mm) < 1
