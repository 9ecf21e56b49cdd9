"""Where a round's time goes: every second of a turn is put down to a phase; a few training steps are traced.

RUN/profile/turns.jsonl         one line per turn, and per round of the coordinator: seconds by phase
RUN/profile/SITE.trace.json.gz  three training steps of a site, for chrome://tracing or ui.perfetto.dev
RUN/profile/table.txt           the table that is printed at the end

Nothing is measured, and no hook is set, unless a run is profiled.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import profile as torch_profile
from torch.profiler import schedule

from nnunet_fedmepd.nnunet_plugin.trainer import FedMEPDTrainer

PHASES = (
    *("data", "forward", "backward", "optimizer", "validation"),
    *("bookkeeping", "protocol", "codec", "disk", "waiting", "tracing"),
)
TRACED_STEPS = 3


class Stopwatch:
    """Puts the time since the last lap down to a phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Say what has been done since the last lap."""
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now


class NoStopwatch(Stopwatch):
    """Measures nothing."""

    def lap(self, phase: str) -> None:
        pass


class NoProfile:
    """Of a run that is not profiled."""

    def turn(self, who: str, round_number: int) -> AbstractContextManager[Stopwatch]:
        """Measure a turn, or the coordinator's round."""
        return nullcontext(NoStopwatch())

    def training(self, who: str, trainer: FedMEPDTrainer, watch: Stopwatch) -> AbstractContextManager[None]:
        """Measure a training phase by phase."""
        return nullcontext()


class Profile(NoProfile):
    """Of a run that is profiled, in one process.

    Args:
        folder: RUN/profile.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._traced: set[str] = set()
        self._idle_since: float | None = None

    @contextmanager
    def turn(self, who: str, round_number: int) -> Iterator[Stopwatch]:
        watch = Stopwatch()
        if self._idle_since is not None:
            watch.seconds["waiting"] = time.perf_counter() - self._idle_since
        yield watch
        self._idle_since = time.perf_counter()
        with (self.folder / "turns.jsonl").open("a") as file:
            file.write(json.dumps({"round": round_number, "who": who, "seconds": watch.seconds}) + "\n")

    @contextmanager
    def training(self, who: str, trainer: FedMEPDTrainer, watch: Stopwatch) -> Iterator[None]:
        with self._traces(who) as step_ends:
            watch.lap("tracing")
            hooks = set_hooks(trainer, watch, step_ends)
            try:
                yield
            finally:
                for hook in hooks:
                    hook.remove()
            watch.lap("bookkeeping")
        watch.lap("tracing")

    @contextmanager
    def _traces(self, who: str) -> Iterator[Callable[[], None]]:
        """Trace the second to fourth step of the site's first training in this process."""
        if who in self._traced:
            yield lambda: None
            return
        self._traced.add(who)
        file = str(self.folder / f"{who}.trace.json.gz")
        steps = schedule(wait=0, warmup=1, active=TRACED_STEPS, repeat=1)
        with torch_profile(schedule=steps, on_trace_ready=lambda trace: trace.export_chrome_trace(file)) as tracer:
            yield tracer.step


def set_hooks(trainer: FedMEPDTrainer, watch: Stopwatch, step_ends: Callable[[], None]) -> Sequence[Any]:
    """Let network, loss and optimizer say when they begin and end; returns the hooks, to be removed."""
    network = trainer.network

    def lap(phase: str) -> None:
        watch.lap(phase if network.training else "validation")

    def optimizer_ends(*_: Any) -> None:
        lap("optimizer")
        step_ends()
        lap("tracing")

    return [
        network.register_forward_pre_hook(lambda *_: lap("data")),
        network.register_forward_hook(lambda *_: lap("forward")),
        trainer.loss.register_forward_hook(lambda *_: lap("forward")),
        trainer.optimizer.register_step_pre_hook(lambda *_: lap("backward")),
        trainer.optimizer.register_step_post_hook(optimizer_ends),
    ]
