from __future__ import annotations

import os

import pytest

from nnunet_fedmepd.demo_data.workers import run_all
from nnunet_fedmepd.errors import FedMEPDError


def square(n: int) -> int:
    return n * n


def say_process(_: int) -> int:
    return os.getpid()


def fail_at_two(n: int) -> int:
    if n == 2:
        raise ValueError("two is not allowed")
    return n


def end_abruptly(_: int) -> None:
    os._exit(1)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    assert run_all(square, [3, 1, 2], workers, "Squares") == [9, 1, 4]


def test_one_worker_is_this_process() -> None:
    assert set(run_all(say_process, [1, 2], 1, "Processes")) == {os.getpid()}


def test_several_workers_are_other_processes() -> None:
    assert os.getpid() not in run_all(say_process, [1, 2], 2, "Processes")


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_through(workers: int) -> None:
    with pytest.raises(ValueError, match="two is not allowed"):
        run_all(fail_at_two, [1, 2, 3], workers, "Numbers")


def test_a_killed_worker_is_explained() -> None:
    with pytest.raises(FedMEPDError, match="one of 2 worker processes was killed, most often for lack of memory"):
        run_all(end_abruptly, [1, 2], 2, "Numbers")
