"""Table 3: what it costs a coordinator to add up the updates of 8, 64 and 512 sites of 10 M parameters.

Every number of sites is counted in a process of its own, so that the peak of its memory is that of this sum.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from nnunet_fedmepd.maths.aggregation import RunningSum, encoder_contribution, filter_contribution
from nnunet_fedmepd.maths.parameters import FilterGroup, select, uniform_masks
from nnunet_fedmepd.maths.personalization import PersonalizationSettings, RoundEvidence, fresh, personalize
from tests.benchmarks.measurements import Measured, interleaved_seconds
from tests.benchmarks.planned_networks import CANONICAL, fedmepd_net
from tests.benchmarks.traffic_table import parameters_of

N_SITES = (8, 64, 512)
SHAPE, N_TENSORS = (160, 160, 3, 3, 3), 14  # 9.7 M parameters
PLAIN, WEIGHING_ONE, WEIGHED = "a plain float32 sum", "exact sum", "exact sum of filters weighed by importance"


def aggregation_rows() -> Iterator[Measured]:
    """Yield time and memory by number of sites, and the time of a site's own judgement."""
    costs = {}
    for n_sites in N_SITES:
        with ProcessPoolExecutor(1, get_context("spawn")) as own_process:
            costs[n_sites] = own_process.submit(cost_of_sum, n_sites).result()
    for n_sites, (seconds, peak) in costs.items():
        yield Measured(f"{n_sites} sites: time per site", 1e3 * seconds / n_sites, "ms", 3.0, False)
        yield Measured(f"{n_sites} sites: peak memory beside one update", peak, "MB", None, False)
    few, many = costs[N_SITES[0]], costs[N_SITES[-1]]
    growth = (many[0] / N_SITES[-1]) / (few[0] / N_SITES[0])
    yield Measured("time per site, 512 sites / 8 sites", growth, "x", 1.1, False)
    yield Measured("peak memory, 512 sites / 8 sites", many[1] / few[1], "x", 1.1, False)
    side_by_side = sums_side_by_side()
    for name, seconds in side_by_side.items():
        yield Measured(f"{name}, per site", 1e3 * seconds, "ms", None, False)
    plain = side_by_side[PLAIN]
    for name in (WEIGHING_ONE, WEIGHED):
        yield Measured(f"{name} / {PLAIN}", side_by_side[name] / plain, "x", None, False)
    yield Measured(f"bandwidth of {PLAIN}", 3 * N_TENSORS * math.prod(SHAPE) * 4 / plain / 1e9, "GB/s", None, True)
    yield Measured("agreement of all filters, at a site", 1e3 * seconds_of_agreement(), "ms", 15.0, False)


def cost_of_sum(n_sites: int) -> tuple[float, float]:
    """Return processor seconds, and megabytes beyond those that the process had with one update in memory."""
    torch.set_num_threads(1)
    update = {"T1": {f"p{i}": torch.randn(SHAPE) for i in range(N_TENSORS)}}
    before, running, seconds = peak_megabytes(), RunningSum(), 0.0
    running.add(encoder_contribution(update))  # fetches the total's pages, once a round: not a site's cost
    for _ in range(n_sites):
        started = time.process_time()
        running.add(encoder_contribution(update))
        seconds += time.process_time() - started
        for tensor in update["T1"].values():
            tensor.mul_(0.99)  # another site's
    running.total()
    return seconds, peak_megabytes() - before


def peak_megabytes() -> float:
    """Return the largest resident size of this process so far (Linux); getrusage would tell that of its parent."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def sums_side_by_side() -> dict[str, float]:
    """Return the seconds a site of ways to add as many values: what memory allows, and exact sums."""
    torch.set_num_threads(1)
    update = {"T1": {f"p{i}": torch.randn(SHAPE) for i in range(N_TENSORS)}}
    groups = [FilterGroup(name, ((name, 0),), SHAPE[0]) for name in update["T1"]]
    filters = select(update["T1"], groups, uniform_masks(groups, True))
    importance = {group.name: torch.rand(SHAPE[0]) for group in groups}
    values, total, copied = (torch.zeros(N_TENSORS * math.prod(SHAPE)) for _ in range(3))
    precise_total, encoders, decoder = total.double().numpy(), RunningSum(), RunningSum()
    actions: dict[str, Callable[[], object]] = {
        "a copy": lambda: copied.copy_(values),
        PLAIN: lambda: total.add_(values),
        "a plain float64 sum of float32": lambda: np.add(precise_total, values.numpy(), out=precise_total),
        WEIGHING_ONE: lambda: encoders.add(encoder_contribution(update)),
        WEIGHED: lambda: decoder.add(filter_contribution(filters, importance, groups)),
    }
    return interleaved_seconds(actions, 7)


def seconds_of_agreement() -> float:
    """Return the seconds that a site takes to judge all filters of its fusion decoder."""
    network = fedmepd_net(CANONICAL, 64)
    groups, names = network.decoder_filters(), network.parts().fusion_decoder
    whole = parameters_of(network)
    lead, site = ({name: whole[name] * factor for name in names} for factor in (0.01, 0.02))
    settings = PersonalizationSettings(warm_up_rounds=0)
    own_share = {group.name: torch.full((group.n_filters,), 0.1, dtype=torch.float64) for group in groups}
    state, evidence = fresh(groups, settings), RoundEvidence(1, lead, site, 0.1, own_share)
    return interleaved_seconds({"judge": lambda: personalize(state, evidence, groups, settings)}, 5)["judge"]
