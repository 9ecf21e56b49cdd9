"""Which filters became personal, and how far a site and the lead agreed about them, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_fedmepd.evaluation.report.blocks import Picture, drawing
from nnunet_fedmepd.evaluation.report.record import RunRecord
from nnunet_fedmepd.evaluation.report.style import ABSENT_COLOUR, round_axis
from nnunet_fedmepd.networks.decoder_layers import DecoderLayer
from nnunet_fedmepd.pictures import new_figure

_LAYER_INCHES = 0.17
# Agreement is averaged over this many of a site's last judgements: a single one is noisy.
LAST_JUDGEMENTS = 10


def layer_names(layers: Sequence[DecoderLayer]) -> list[str]:
    """Return what layers are called; scale 1 is the full resolution, as people count."""
    return [f"scale {layer.scale + 1}: {layer.part}" for layer in layers]


def personal_shares(record: RunRecord, site: str) -> np.ndarray:
    """Return (layers, rounds) the share of personal filters of a site, NaN where it did not train."""
    sizes = np.array([layer.n_filters for layer in record.layers])
    return record.by_layer(site, "personal") / sizes[:, None]


def overall_share(record: RunRecord, site: str) -> np.ndarray:
    """Return (rounds,) the share of personal filters of a site's whole decoder."""
    filters, shared = record.by_round(site, "filters"), record.by_round(site, "shared_filters")
    return (filters - shared) / filters


def draw_personal_filters(record: RunRecord, site: str, largest: float) -> Picture:
    """Draw a site's share of personal filters, a row a layer and a column a round, from 0 to `largest`."""
    shares = personal_shares(record, site)
    figure = new_figure(3.8, 0.9 + _LAYER_INCHES * len(shares))
    panel = figure.subplots()
    colours = _colours("BuPu")
    extent = (0.5, shares.shape[1] + 0.5, len(shares) - 0.5, -0.5)
    image = panel.imshow(
        shares, cmap=colours, vmin=0, vmax=largest, aspect="auto", interpolation="nearest", extent=extent
    )
    panel.set_yticks(range(len(shares)), layer_names(record.layers), fontsize=7)
    panel.tick_params(axis="x", labelsize=7)
    round_axis(panel, record.last_round)
    panel.set_title(site, fontsize=10, loc="left")
    bar = figure.colorbar(image, ax=panel, fraction=0.05, pad=0.02, format=lambda share, _: f"{share:.0%}")
    bar.ax.tick_params(labelsize=7)
    return drawing(figure, f"Share of personal filters of site {site}, by decoder layer and round")


def mean_agreement(record: RunRecord, site: str) -> np.ndarray:
    """Return (layers,) the mean agreement of a site over its last judgements, NaN where there was none."""
    values = record.by_layer(site, "agreement")
    judged = values[:, np.isfinite(values).any(0)][:, -LAST_JUDGEMENTS:]
    known = np.isfinite(judged)
    counts = known.sum(1)
    return np.divide(np.where(known, judged, 0).sum(1), counts, out=np.full(len(values), np.nan), where=counts > 0)


def agreement_by_round(record: RunRecord, site: str) -> np.ndarray:
    """Return (rounds,) a site's agreement in each round, mean over layers by their number of filters.

    What a turn reports was judged by the round before: the last round is not judged yet.
    """
    values = record.by_layer(site, "agreement")
    weights = np.where(np.isfinite(values), np.array([layer.n_filters for layer in record.layers])[:, None], 0)
    totals = weights.sum(0)
    means = (np.nan_to_num(values) * weights).sum(0)
    means = np.divide(means, totals, out=np.full(len(totals), np.nan), where=totals > 0)
    return np.append(means[1:], np.nan)


def draw_agreement(record: RunRecord, sites: Sequence[str]) -> Picture:
    """Draw the mean agreement, a row a layer and a column a site; numbers say what colours show."""
    values = np.stack([mean_agreement(record, site) for site in sites], 1)
    figure = new_figure(2.3 + 0.55 * len(sites), 1.2 + 1.2 * _LAYER_INCHES * len(values))
    panel = figure.subplots()
    limit = max(0.05, float(np.nanmax(np.abs(values))))
    image = panel.imshow(values, cmap=_colours("RdBu"), vmin=-limit, vmax=limit, aspect="auto")
    panel.set_yticks(range(len(values)), layer_names(record.layers), fontsize=7)
    panel.set_xticks(range(len(sites)), sites, fontsize=8, rotation=30, ha="right", rotation_mode="anchor")
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        ink = "white" if abs(value) > 0.7 * limit else "black"
        text = f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"
        panel.text(column, row, text, ha="center", va="center", fontsize=6.5, color=ink)
    bar = figure.colorbar(image, ax=panel, fraction=0.04, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    return drawing(figure, "Mean agreement of every site with the lead, by decoder layer")


def _colours(name: str):  # type: ignore[no-untyped-def]  # a Colormap, whose module is imported late
    from matplotlib import colormaps

    return colormaps[name].with_extremes(bad=ABSENT_COLOUR)
