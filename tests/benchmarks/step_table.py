"""Table 1: time and memory of a training step with 1, 2 and 4 modalities, against other networks at the same plans."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks.measurements import Measured, interleaved_seconds, saved_bytes
from tests.benchmarks.planned_networks import CANONICAL
from tests.benchmarks.training_steps import compared_steps

SITES = {1: ("T1ce",), 2: ("T1ce", "FLAIR"), 4: CANONICAL}
# Per number of modalities: how many times faster than the published structure, in fp32 (floor, goal) and bf16; how
# many times the time of PlainConvUNet; how much of the published structure's saved activations.
TARGETS = {1: (2.7, 4.0, 5.0, 1.0, 0.3), 2: (1.9, 3.0, 4.0, 1.4, 0.4), 4: (1.25, 2.5, 3.0, 2.0, 0.6)}


def step_rows(patch: int, batch: int, repeats: int) -> Iterator[Measured]:
    """Yield the numbers of one patch and batch size; the switches are `training_steps.SWITCHES`."""
    for n, modalities in SITES.items():
        steps = {step.name: step for step in compared_steps(modalities, patch, batch)}
        seconds = interleaved_seconds(dict(steps), repeats)
        saved = {name: saved_bytes(step.forward, step.network) for name, step in steps.items()}
        where = f"{n} of 4 modalities, {patch}^3 x {batch}"
        ours, published = seconds["ours"], seconds["published structure"]
        floor, goal, bf16, plain, activations = TARGETS[n]
        yield Measured(f"{where}: step", ours, "s", None, False)
        yield Measured(f"{where}: published / ours (floor {floor}; goal)", published / ours, "x", goal, True)
        yield Measured(f"{where}: published / ours in bf16", published / seconds["ours, bf16"], "x", bf16, True)
        switched, switched_bf16 = (published / seconds[f"ours, switches{precision}"] for precision in ("", ", bf16"))
        yield Measured(f"{where}: published / ours with switches", switched, "x", goal, True)
        yield Measured(f"{where}: published / ours with switches in bf16", switched_bf16, "x", bf16, True)
        yield Measured(f"{where}: ours / PlainConvUNet", ours / seconds["PlainConvUNet"], "x", plain, False)
        yield Measured(f"{where}: ours / ResEnc M", ours / seconds["ResEnc M"], "x", None, False)
        share = saved["ours"] / saved["published structure"]
        yield Measured(f"{where}: saved activations", saved["ours"] / 2**20, "MiB", None, False)
        yield Measured(f"{where}: saved activations, ours / published", share, "x", activations, False)
