from __future__ import annotations

import numpy as np
import pytest

from nnunet_fedmepd.demo_data.fields import draw_field
from nnunet_fedmepd.demo_data.lattice import Lattice, soft_step


def test_the_lattice_is_centred_and_in_array_order() -> None:
    lattice = Lattice.of_image((4, 3, 2), 2.0)
    assert lattice.image_shape == (2, 3, 4)
    z_mm, y_mm, x_mm = lattice.axes_mm
    assert z_mm.tolist() == [-1, 1]
    assert y_mm.tolist() == [-2, 0, 2]
    assert x_mm.tolist() == [-3, -1, 1, 3]
    assert lattice.half_field_of_view_mm.tolist() == [2, 3, 4]
    assert lattice.voxel_volume_mm3 == 8


def test_only_the_head_box_is_computed_and_the_rest_of_the_image_is_zero() -> None:
    lattice = Lattice.of_image((80, 80, 80), 3.0)  # voxels at 1.5, 4.5, ... mm; the box reaches 82, 100 and 80 mm
    shape = tuple(axis.size for axis in lattice.axes_mm)
    assert shape == (54, 66, 54)
    image = lattice.embed(np.ones(shape, np.uint8))
    assert image.shape == (80, 80, 80)
    assert image.sum() == 54 * 66 * 54


def test_fields_have_mean_zero_and_variance_one() -> None:
    lattice = Lattice.of_image((40, 40, 40), 4.0)
    rng = np.random.default_rng(0)
    fields = np.stack([draw_field(rng, lattice, 12.0) for _ in range(10)])
    assert abs(fields.mean()) < 0.02
    assert fields.var() == pytest.approx(1, abs=0.03)


def test_one_seed_gives_one_field_at_any_voxel_size() -> None:
    coarse, fine = Lattice.of_image((21, 21, 21), 6.0), Lattice.of_image((41, 41, 41), 3.0)
    at_coarse = draw_field(np.random.default_rng(3), coarse, 20.0)
    at_fine = draw_field(np.random.default_rng(3), fine, 20.0)
    correlation = np.corrcoef(at_coarse.ravel(), at_fine[::2, ::2, ::2].ravel())[0, 1]
    assert correlation > 0.9999  # the same up to the scaling to variance 1


def test_neighbours_differ_less_in_a_coarser_field() -> None:
    lattice = Lattice.of_image((30, 30, 30), 4.0)

    def roughness(scale_mm: float) -> float:
        return float(np.abs(np.diff(draw_field(np.random.default_rng(1), lattice, scale_mm), axis=0)).mean())

    assert roughness(40.0) < roughness(20.0) < roughness(10.0)


def test_the_soft_step_is_a_half_at_zero_and_saturates_without_overflow() -> None:
    x = np.array([-1e6, 0, 1e6], np.float32).reshape(3, 1, 1)
    np.testing.assert_allclose(soft_step(x).ravel(), [0, 0.5, 1], atol=1e-12)
