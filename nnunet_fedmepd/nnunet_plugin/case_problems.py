"""Goes through the cases of a dataset, and tells together what is wrong with several of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nnunet_fedmepd.errors import DatasetError

_TOLD_IN_FULL = 3

_Case = TypeVar("_Case")
_Result = TypeVar("_Result")


def for_every_case(
    cases: Mapping[str, _Case],
    work: Callable[[str, _Case], _Result],
    n_threads: int = 1,
    advance: Callable[[], object] = lambda: None,
) -> list[_Result]:
    """Return what `work` makes of every case, in their order.

    Args:
        cases: by name.
        work: takes a name and the case.
        n_threads: that work.
        advance: called after each case.

    Raises:
        DatasetError: raised by `work`; of several cases the first few are told in full, the others counted.
    """

    def attempt(case: tuple[str, _Case]) -> _Result | DatasetError:
        try:
            return work(*case)
        except DatasetError as error:
            return error

    results, problems = [], []
    with ThreadPoolExecutor(max(1, n_threads)) as pool:
        for result in pool.map(attempt, cases.items()):
            if isinstance(result, DatasetError):
                problems.append(result)
            else:
                results.append(result)
            advance()
    if problems:
        raise _together(problems)
    return results


def _together(problems: Sequence[DatasetError]) -> DatasetError:
    if len(problems) == 1:
        return problems[0]
    told = [str(problem) for problem in problems[:_TOLD_IN_FULL]]
    if others := [str(problem.case) for problem in problems[_TOLD_IN_FULL:]]:
        more = ", ..." if len(others) > _TOLD_IN_FULL else ""
        told.append(f"and {len(others)} more: {', '.join(others[:_TOLD_IN_FULL])}{more}")
    return DatasetError("\n".join([f"{len(problems)} cases cannot be used", *told]).replace("\n", "\n  "))
