"""Curves over the rounds: one line a site."""

from __future__ import annotations

import numpy as np

from nnunet_fedmepd.evaluation.report.blocks import Picture, drawing
from nnunet_fedmepd.evaluation.report.record import RunRecord
from nnunet_fedmepd.evaluation.report.style import legend_below, light_frame, line_styles, new_figure, round_axis

# From here on single rounds hide the course of things: a running mean is drawn, rounds are pale.
_MANY_ROUNDS = 60


def draw_curves(
    record: RunRecord, values: dict[str, np.ndarray], label: str, caption: str, from_zero: bool = True
) -> Picture:
    """Draw site -> (rounds,) numbers, NaN where there is none.

    Args:
        record: of the run.
        values: to draw.
        label: of the vertical axis.
        caption: below the picture.
        from_zero: whether the vertical axis starts at 0.
    """
    figure = new_figure(5.4, 3.4)
    panel = figure.subplots()
    styles = line_styles(record.sites, [site for site in record.sites if record.is_lead(site)])
    rounds = np.arange(1, record.last_round + 1)
    for site, numbers in values.items():
        style, shown = styles[site], numbers
        if len(rounds) > _MANY_ROUNDS:
            panel.plot(rounds, numbers, color=style["color"], alpha=0.2, linewidth=0.6)
            shown = running_mean(numbers, len(rounds) // 20)
        known = np.isfinite(shown)
        name = f"{site} (lead)" if record.is_lead(site) else site
        marker = "." if len(rounds) <= 20 else None
        panel.plot(rounds[known], shown[known], label=name, marker=marker, **{"linewidth": 1.4, **style})
    round_axis(panel, record.last_round)
    panel.set_ylabel(label)
    if from_zero:
        panel.set_ylim(bottom=0)
    light_frame(panel)
    legend_below(figure, panel)
    return drawing(figure, f"{label} of every site over the rounds", caption)


def running_mean(values: np.ndarray, half_width: int) -> np.ndarray:
    """Return, for each round, the mean over the rounds at most `half_width` away; NaN does not count."""
    known = np.isfinite(values)
    window = np.ones(2 * half_width + 1)
    sums = np.convolve(np.where(known, values, 0.0), window)[half_width : half_width + len(values)]
    counts = np.convolve(known.astype(float), window)[half_width : half_width + len(values)]
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)
