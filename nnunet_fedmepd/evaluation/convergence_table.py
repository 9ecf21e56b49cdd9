"""Shows how soon methods are as good as the baseline ever gets."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from nnunet_fedmepd.evaluation.convergence import Convergence


def convergence_table(convergences: Sequence[Convergence], baseline: str) -> Table:
    """Return site x method: training steps until the baseline's plateau on validation patches."""
    methods = list(dict.fromkeys(c.method for c in convergences))
    table = Table(
        title=f"Training steps until {baseline}'s plateau on validation patches",
        caption=f"And as a share of {baseline}'s own; -: not reached. A plateau counts as reached 0.01 below its top.",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("site", no_wrap=True)
    for method in methods:
        table.add_column(method, justify="right", no_wrap=True)
    for site in dict.fromkeys(c.site for c in convergences):
        own = {c.method: c for c in convergences if c.site == site}
        table.add_row(site, *(_cell(own[m]) if m in own else "" for m in methods))
    return table


def _cell(convergence: Convergence) -> str:
    if math.isnan(convergence.steps):
        return "-"
    return f"{convergence.steps:.0f} ({convergence.steps / convergence.baseline_steps:.2f})"
