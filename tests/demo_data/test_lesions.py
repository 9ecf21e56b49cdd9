"""Tumour, oedema and composition on drawn examples and on small cases."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_fedmepd.demo_data.anatomy import Tissues
from nnunet_fedmepd.demo_data.composition import compose_core
from nnunet_fedmepd.demo_data.lattice import Lattice
from nnunet_fedmepd.demo_data.oedema import march_front
from nnunet_fedmepd.demo_data.tumour import (
    TumourCore,
    TumourPlan,
    TumourSeat,
    find_origins,
    find_seat,
    keep_large_pieces,
)
from nnunet_fedmepd.errors import ConfigurationError

SEAT = TumourSeat(np.zeros(3), np.float32(1))


def plan(*, high_grade: bool = True, mass_effect: float = 0.0) -> TumourPlan:
    return TumourPlan(high_grade, radius_mm=10.0, position=0.5, mass_effect=mass_effect)


def ball(*, high_grade: bool, size: int = 31) -> tuple[Lattice, TumourCore]:
    """A core of 12 mm radius in the middle of a lattice of 1 mm."""
    lattice = Lattice.of_image((size, size, size), 1.0)
    depth_mm = (12 - np.sqrt(sum(p**2 for p in lattice.points_mm))).astype(np.float32)
    return lattice, TumourCore(plan(high_grade=high_grade), SEAT, depth_mm > 0, depth_mm)


def test_without_mass_effect_nothing_moves() -> None:
    lattice = Lattice.of_image((5, 5, 5), 4.0)
    for origin, point in zip(find_origins(lattice, plan(), SEAT), lattice.points_mm, strict=True):
        np.testing.assert_array_equal(origin, point)


def test_the_mass_effect_moves_tissue_outwards_and_less_so_far_away() -> None:
    lattice = Lattice.of_image((41, 1, 1), 2.0)  # a line along X, the tumour in its middle
    x_mm = lattice.points_mm[2].ravel()
    moved_mm = x_mm - find_origins(lattice, plan(mass_effect=0.3), SEAT)[2].ravel()
    assert (moved_mm[x_mm > 0] > 0).all()
    assert (moved_mm[x_mm < 0] < 0).all()
    np.testing.assert_allclose(moved_mm[x_mm == 2], 2 * 0.3 * np.exp(-((2 / 17) ** 2)), rtol=1e-5)
    assert moved_mm[-1] < 0.2


def test_a_brain_without_deep_white_matter_is_an_error_that_says_what_to_change() -> None:
    lattice = Lattice.of_image((10, 10, 10), 4.0)
    grey_only = np.zeros((3, 10, 10, 10), np.float32)
    grey_only[1] = 1
    everywhere = np.ones((10, 10, 10), np.float32)
    tissues = Tissues(grey_only, everywhere, 0 * everywhere, lattice.points_mm)
    with pytest.raises(ConfigurationError, match=r"No place .* 10\.0 mm.*larger field of view"):
        find_seat(plan(), tissues, lattice)


def test_the_seat_is_the_only_possible_voxel() -> None:
    lattice = Lattice.of_image((15, 15, 15), 4.0)
    fractions = np.zeros((3, 15, 15, 15), np.float32)
    fractions[2, 7, 8, 10] = 1  # z = 0, y = 4, x = 12 mm
    everywhere = np.ones((15, 15, 15), np.float32)
    everywhere[0] = 0  # the brain ends somewhere
    seat = find_seat(plan(), Tissues(fractions, everywhere, 0 * everywhere, lattice.points_mm), lattice)
    assert seat.centre_mm.tolist() == [0, 4, 12]
    assert seat.hemisphere == 1


def test_pieces_are_kept_by_their_volume() -> None:
    lattice = Lattice.of_image((6, 1, 1), 2.0)  # 8 mm³ a voxel
    pieces = np.array([[[1, 1, 0, 2, 0, 0]]])
    assert keep_large_pieces(pieces, 8.0, lattice).astype(int).tolist() == [[[1, 1, 0, 0, 0, 0]]]
    assert keep_large_pieces(pieces, 7.0, lattice).astype(int).tolist() == [[[1, 1, 0, 1, 0, 0]]]
    assert not keep_large_pieces(pieces, 16.0, lattice).any()


def test_the_front_arrives_after_the_distance_divided_by_the_speed() -> None:
    lattice = Lattice.of_image((9, 1, 1), 2.0)
    core = np.zeros((1, 1, 9), bool)
    core[0, 0, 0] = True
    at_unit_speed = march_front(core, np.ones((1, 1, 9), np.float32), lattice, 100.0).ravel()
    at_half_speed = march_front(core, np.full((1, 1, 9), 0.5, np.float32), lattice, 100.0).ravel()
    np.testing.assert_allclose(at_unit_speed, 2 * np.arange(9), atol=0.05)  # 0.05: within the core it takes 2/60
    np.testing.assert_allclose(at_half_speed, 4 * np.arange(9), atol=0.05)


def test_the_front_goes_round_an_obstacle() -> None:
    lattice = Lattice.of_image((7, 7, 1), 1.0)
    core = np.zeros((1, 7, 7), bool)
    core[0, 3, 0] = True
    speed = np.ones((1, 7, 7), np.float32)
    speed[0, 1:, 3] = 0.01  # a wall with a gap at the top
    arrival = march_front(core, speed, lattice, 200.0)
    detour_mm = np.hypot(3, 3) * 2  # to the gap and back down
    assert 6 < detour_mm - 1 < arrival[0, 3, 6] < detour_mm + 3


def test_without_a_core_no_front_starts() -> None:
    lattice = Lattice.of_image((3, 3, 3), 1.0)
    arrival = march_front(np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), np.float32), lattice, 10.0)
    assert (arrival == 1000).all()


@pytest.mark.parametrize("high_grade", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_parts_of_a_core_sum_to_one(high_grade: bool, seed: int) -> None:
    lattice, core = ball(high_grade=high_grade)
    made = compose_core(np.random.default_rng(seed), lattice, core)
    np.testing.assert_allclose(made.enhancing + made.non_enhancing + made.necrosis, 1, atol=1e-5)
    assert made.blood.min() >= 0
    assert made.blood.max() <= 1


@pytest.mark.parametrize("seed", range(4))
def test_a_high_grade_core_is_necrotic_only_below_its_rim(seed: int) -> None:
    lattice, core = ball(high_grade=True)
    made = compose_core(np.random.default_rng(seed), lattice, core)
    surface = core.mask & (core.depth_mm < 1)  # the thinnest rim: 0.35 x 3.0 mm
    assert made.necrosis[surface].max() < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_a_low_grade_core_does_not_enhance_at_its_surface(seed: int) -> None:
    lattice, core = ball(high_grade=False)
    made = compose_core(np.random.default_rng(seed), lattice, core)
    assert not (made.enhancing_mask(core) & (core.depth_mm <= 1.5)).any()
