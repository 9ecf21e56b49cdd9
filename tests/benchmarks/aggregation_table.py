"""Table 3: what it costs a coordinator to add up the updates of 8, 64 and 512 sites of 10 M parameters.

Every number of sites is counted in a process of its own, so that the peak of its memory is that of this sum.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from nnunet_fedmepd.maths.aggregation import RunningSum, encoder_contribution
from nnunet_fedmepd.maths.personalization import PersonalizationSettings, RoundEvidence, fresh, personalize
from tests.benchmarks.measurements import Measured, interleaved_seconds
from tests.benchmarks.planned_networks import CANONICAL, fedmepd_net
from tests.benchmarks.traffic_table import parameters_of

N_SITES = (8, 64, 512)
SHAPE, N_TENSORS = (160, 160, 3, 3, 3), 14  # 9.7 M parameters


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
    plain = plain_sum()
    yield Measured("a plain float32 sum, per site", 1e3 * plain, "ms", None, False)
    yield Measured("exact sum / plain float32 sum", many[0] / N_SITES[-1] / plain, "x", None, False)
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


def plain_sum() -> float:
    """Return the seconds that adding as many float32 values takes, in any one order: the memory's own speed."""
    total, update = (torch.zeros(N_TENSORS, *SHAPE) for _ in range(2))
    return interleaved_seconds({"sum": lambda: total.add_(update)}, 5)["sum"]  # type: ignore[dict-item]


def seconds_of_agreement() -> float:
    """Return the seconds that a site takes to judge all filters of its fusion decoder."""
    network = fedmepd_net(CANONICAL, 64)
    groups, names = network.decoder_filters(), network.parts().fusion_decoder
    whole = parameters_of(network)
    lead, site = ({name: whole[name] * factor for name in names} for factor in (0.01, 0.02))
    settings = PersonalizationSettings(warm_up_rounds=0)
    state, evidence = fresh(groups, settings), RoundEvidence(1, lead, site, 0.1)
    return interleaved_seconds({"judge": lambda: _judge(state, evidence, groups, settings)}, 5)["judge"]


def _judge(*arguments: object) -> Tensor | None:
    personalize(*arguments)  # type: ignore[arg-type]
    return None
