"""Shows a comparison: a table per checkpoint, and one figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from nnunet_fedmepd.evaluation.comparison import ALL_SITES, STAGES, Result
from nnunet_fedmepd.pictures import new_figure, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES_PER_SITE = 1.1
_MARKERS = "osD^vPX<>"
# Okabe and Ito's colours that are dark enough for a white page.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")


def comparison_table(results: Sequence[Result], checkpoint: str, baseline: str, remark: str = "") -> Table:
    """Return site x method: mean Dice with its 95 % interval, gain over the baseline with its p value, and steps.

    With several seeds their spread is told, too: the deviation of Dice, and the smallest and largest gain of a seed.

    Args:
        results: of all checkpoints.
        checkpoint: what is shown.
        baseline: method that the others are tested against.
        remark: added to the title.
    """
    shown = [result for result in results if result.checkpoint == checkpoint]
    several = max(result.n_seeds for result in shown) > 1
    table = Table(
        title=STAGES[checkpoint] + remark,
        caption=_caption(baseline, [result.n_seeds for result in shown]),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    spread = (["± seeds"], ["of seeds"]) if several else ([], [])
    columns = ("site", "method", "Dice [95 %]", *spread[0], "gain", *spread[1], "p", "steps")
    for column in columns:
        table.add_column(column, justify="left" if column in ("site", "method") else "right", no_wrap=True)
    for site in dict.fromkeys(result.site for result in shown):
        own = [result for result in shown if result.site == site]
        lines = [_cells(result, several) for result in own]
        who = f"{site}\n{own[0].n_cases} case{'s' * (own[0].n_cases > 1)}"
        table.add_row(who, *("\n".join(column) for column in zip(*lines, strict=True)), end_section=True)
    return table


def _caption(baseline: str, n_seeds: Sequence[int]) -> str:
    seeds = " to ".join(map(str, sorted({min(n_seeds), max(n_seeds)})))
    return (
        f"Mean over regions and cases [95 % bootstrap interval over cases]; seeds: {seeds}, averaged within a case. "
        f"gain: over {baseline}, same cases and seeds. p: over cases, adjusted (Holm); Wilcoxon at a site, random "
        "signs in the mean, which leaves leads out. It is about these trained models: how much other trainings would "
        "differ, only seeds tell."
    )


def draw_comparison(results: Sequence[Result], file: Path, remark: str = "") -> Path:
    """Draw every method's Dice with its interval, site by site, a panel per checkpoint, into a PNG.

    The remark is added to the panels' titles.
    """
    import matplotlib.style

    with matplotlib.style.context("default"):  # nnU-Net's progress plots change the style of the whole process
        return _draw(results, file, remark)


def _draw(results: Sequence[Result], file: Path, remark: str) -> Path:
    checkpoints = list(dict.fromkeys(result.checkpoint for result in results))
    sites = list(dict.fromkeys(result.site for result in results))
    width = max(5.0, _INCHES_PER_SITE * len(sites) + 1.5)
    figure = new_figure(width, 3.2 * len(checkpoints) + 0.6)
    panels = figure.subplots(len(checkpoints), 1, squeeze=False, sharex=True)[:, 0]
    methods = list(dict.fromkeys(result.method for result in results))
    for panel, checkpoint in zip(panels, checkpoints, strict=True):
        _draw_checkpoint(panel, [r for r in results if r.checkpoint == checkpoint], sites, methods)
        panel.set_title(STAGES[checkpoint] + remark, fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(methods)), frameon=False)
    save_png(figure, file)
    return file


def _cells(result: Result, with_seeds: bool) -> list[str]:
    dice = result.dice
    interval = "" if math.isnan(dice.low) else f" [{dice.low:.3f}, {dice.high:.3f}]"
    return [
        result.method,
        f"{dice.mean:.3f}{interval}",
        *([_or_dash(result.seed_deviation, ".3f")] if with_seeds else []),
        _or_dash(result.gain, "+.3f"),
        *([_range(result.seed_gains)] if with_seeds else []),
        "<0.001" if result.p_value < 0.001 else _or_dash(result.p_value, ".3f"),
        f"{result.steps:.0f}",
    ]


def _range(gains: Sequence[float]) -> str:
    return f"{min(gains):+.3f} to {max(gains):+.3f}" if len(gains) > 1 else "-"


def _or_dash(value: float, form: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"


def _draw_checkpoint(panel: Axes, results: Sequence[Result], sites: Sequence[str], methods: Sequence[str]) -> None:
    offsets = np.linspace(-0.3, 0.3, len(methods)) if len(methods) > 1 else np.zeros(1)
    for i, method in enumerate(methods):
        own = [result for result in results if result.method == method]
        x = np.array([sites.index(result.site) for result in own]) + offsets[i]
        means, lows, highs = np.array([(r.dice.mean, r.dice.low, r.dice.high) for r in own]).T
        errors = np.nan_to_num([means - lows, highs - means])
        style: dict[str, Any] = {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}
        panel.errorbar(x, means, errors, label=method, linestyle="none", markersize=5, capsize=2, **style)
    if ALL_SITES in sites:
        panel.axvspan(sites.index(ALL_SITES) - 0.5, len(sites) - 0.5, color="0.93", zorder=0)
    for boundary in range(1, len(sites)):
        panel.axvline(boundary - 0.5, color="0.85", linewidth=0.8, zorder=0)
    panel.set(xlim=(-0.5, len(sites) - 0.5), ylabel="Dice")
    panel.set_xticks(range(len(sites)), [site.replace(" of ", "\nof ") for site in sites])
    panel.spines[["top", "right"]].set_visible(False)
