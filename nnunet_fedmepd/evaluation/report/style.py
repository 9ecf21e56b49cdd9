"""How figures of the report look: small, light, and told apart also by those who see colours differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, 2008, without yellow, which vanishes on white; black is the lead's.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_LINES = ("-", "--", ":", "-.")
LEAD_COLOUR = "black"
ABSENT_COLOUR = "#e4e4e4"


def line_styles(sites: Sequence[str], leads: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """Return site -> colour and line; the combinations repeat after 24 sites."""
    others = [site for site in sites if site not in leads]
    styles: dict[str, dict[str, Any]] = {
        site: {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _LINES[i // len(_COLOURS) % len(_LINES)]}
        for i, site in enumerate(others)
    }
    for i, lead in enumerate(leads):
        styles[lead] = {"color": LEAD_COLOUR, "linestyle": _LINES[i % len(_LINES)], "linewidth": 2.0}
    return styles


def round_axis(panel: Axes, last_round: int) -> None:
    """Make the horizontal axis one of rounds."""
    from matplotlib.ticker import MaxNLocator

    panel.set_xlabel("round")
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panel.set_xlim(0.5, last_round + 0.5)


def light_frame(panel: Axes) -> None:
    """Leave the axes that are read."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color="#e8e8e8", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8)


def legend_below(figure: Figure, panel: Axes, columns: int = 5) -> None:
    """Say below the panel which line is whose."""
    handles, labels = panel.get_legend_handles_labels()
    columns = min(columns, len(labels)) or 1
    narrow = {"handlelength": 1.6, "columnspacing": 1.2, "fontsize": 8}
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, **narrow)
