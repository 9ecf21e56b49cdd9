"""What a run cost each site: megabytes sent, and time."""

from __future__ import annotations

import numpy as np

from nnunet_fedmepd.evaluation.report.blocks import Table
from nnunet_fedmepd.evaluation.report.record import RunRecord

MEGABYTE = 1e6


def traffic_table(record: RunRecord) -> Table:
    """Return one row a site: rounds, megabytes sent and training time."""
    rows = []
    for site in record.sites:
        turns = record.turns_of(site)
        if not turns:
            rows.append([site, "0", "0", *["–"] * 5])
            continue
        sent = np.array([turn["bytes_sent"] for turn in turns]) / MEGABYTE
        seconds = np.array([turn["seconds"] for turn in turns])
        figures = [f"{sent.sum():.1f}", f"{sent[0]:.2f}", f"{sent[-1]:.2f}", f"{seconds.mean():.1f}"]
        refused = str(record.refused.get(site, 0))
        rows.append([site, str(len(turns)), refused, *figures, duration(seconds.sum())])
    header = ["site", "rounds", "refused", "MB sent", "first round", "last round", "s a round", "time in all"]
    return Table(header, rows, "Megabytes sent to the coordinator, and time for training, of each site")


def size(n_bytes: float) -> str:
    """Return an amount of data as people say it."""
    megabytes = n_bytes / MEGABYTE
    return f"{megabytes:.1f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    minutes = seconds / 60
    if minutes < 1.5:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
