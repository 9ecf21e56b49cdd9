"""Curves over the rounds: one line a site."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnunet_fedmepd.evaluation.report.blocks import Picture, drawing
from nnunet_fedmepd.evaluation.report.record import RunRecord
from nnunet_fedmepd.evaluation.report.style import legend_below, light_frame, line_styles, round_axis
from nnunet_fedmepd.pictures import new_figure

# From here on single rounds hide the course of things: a running mean is drawn, rounds are pale.
_MANY_ROUNDS = 60
# A line has at most about this many points: more make the page large, and no picture shows them.
_POINTS = 200
# The pale lines of all sites become one image, below everything else.
_PALE, _RASTERIZED_BELOW = 0.1, 0.2


def draw_curves(
    record: RunRecord, values: Mapping[str, np.ndarray], label: str, from_zero: bool = True, noisy: bool = True
) -> Picture:
    """Draw site -> (rounds,) numbers, NaN where there is none.

    Args:
        record: of the run.
        values: to draw.
        label: of the vertical axis.
        from_zero: whether the vertical axis starts at 0.
        noisy: whether many rounds are drawn as a running mean.
    """
    figure = new_figure(5.4, 3.4)
    panel = figure.subplots()
    styles = line_styles(record.sites, [site for site in record.sites if record.is_lead(site)])
    rounds = np.arange(1, record.last_round + 1)
    for site, numbers in values.items():
        style, shown = styles[site], numbers
        if noisy and len(rounds) > _MANY_ROUNDS:
            panel.plot(rounds, numbers, color=style["color"], alpha=0.2, linewidth=0.6, zorder=_PALE)
            shown = running_mean(numbers, len(rounds) // 20)
        known = np.isfinite(shown) & (rounds % (1 + len(rounds) // _POINTS) == 0)
        name = f"{site} (lead)" if record.is_lead(site) else site
        marker = "." if len(rounds) <= 20 else None
        panel.plot(rounds[known], shown[known], label=name, marker=marker, **{"linewidth": 1.4, **style})
    round_axis(panel, record.last_round)
    panel.set_ylabel(label)
    if from_zero:
        panel.set_ylim(bottom=0)
    light_frame(panel)
    panel.set_rasterization_zorder(_RASTERIZED_BELOW)
    legend_below(figure, panel)
    return drawing(figure, f"{label} of every site over the rounds")


def running_mean(values: np.ndarray, half_width: int) -> np.ndarray:
    """Return the mean over the values at most `half_width` away, fewer near the ends: as many on either side.

    NaN stays NaN and does not count, as if it were not in the row.
    """
    known = np.isfinite(values)
    sums, places = np.concatenate([[0.0], np.cumsum(values[known])]), np.arange(known.sum())
    reach = np.minimum(half_width, np.minimum(places, places[::-1]))
    result = np.full(len(values), np.nan)
    result[known] = (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)
    return result
