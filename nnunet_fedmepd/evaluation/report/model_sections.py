"""Sections on what the method did: personal filters, agreement, anchors, attention; or why something is not there."""

from __future__ import annotations

import numpy as np

from nnunet_fedmepd.evaluation.report.anchors_picture import draw_anchors
from nnunet_fedmepd.evaluation.report.attention_picture import draw_attention
from nnunet_fedmepd.evaluation.report.blocks import Block, Gallery, Missing, Paragraph, Section, Table
from nnunet_fedmepd.evaluation.report.curves import draw_curves
from nnunet_fedmepd.evaluation.report.filters_picture import (
    LAST_JUDGEMENTS,
    agreement_by_round,
    draw_agreement,
    draw_personal_filters,
    overall_share,
    personal_shares,
)
from nnunet_fedmepd.evaluation.report.record import RunRecord
from nnunet_fedmepd.pictures import label_colour

_SAME_SITES = "fedmepd run FILE --variant fedmepd"
_AGAIN = "fedmepd run FILE --run NEW_FOLDER"


def filters_section(record: RunRecord) -> Section:
    """Return the share of personal filters by layer and round, site by site."""
    return Section("filters", "Personal filters", _filters_blocks(record))


def agreement_section(record: RunRecord) -> Section:
    """Return how far sites and lead agreed, layer by layer."""
    return Section("agreement", "Agreement with the lead", _agreement_blocks(record))


def anchors_section(record: RunRecord) -> Section:
    """Return the anchors of every scale in two dimensions."""
    if record.valid.any():
        pictures = [
            draw_anchors(scale, anchors, record.valid, record.class_names)
            for scale, anchors in enumerate(record.anchors)
        ]
        text = (
            "Class means of the lead's fused features, as the sites receive them, on the first two principal "
            "components; scale 1 is the full resolution. Classes that lie apart can be told apart by them."
        )
        return Section("anchors", "Anchors", [Paragraph(text), Gallery(pictures, size="many")])
    return Section("anchors", "Anchors", [_no_anchors(record)])


def attention_section(record: RunRecord) -> Section:
    """Return what the voxels of a slice attend to, site by site."""
    blocks: list[Block] = []
    if record.attention:
        text = (
            f"One slice of a training case of every site, as the calibration at scale {_finest_scale(record)} sees it; "
            "scale 1 is the full resolution, and scales finer than this one are not calibrated. Attention of each "
            "voxel to the anchors of a class, mean over the heads, and the entropy of the attention over all anchors, "
            "as a share of that of uniform attention. Where it is 1, the anchors act as a constant, whatever "
            "the voxel."
        )
        legend = [(name, label_colour(label)) for label, name in enumerate(record.class_names)]
        pictures = [draw_attention(seen, record.class_names, list(record.label_names)) for seen in record.attention]
        blocks = [Paragraph(text), _entropy_table(record), Gallery(pictures, legend=legend)]
    elif not record.valid.any():
        blocks = [_no_anchors(record)]
    if "attention" in record.missing:
        blocks.append(Missing(record.missing["attention"]))
    return Section("attention", "Attention to the anchors", blocks)


def _filters_blocks(record: RunRecord) -> list[Block]:
    if problem := _no_judgement(record):
        return [problem]
    sites = _judging_sites(record)
    settings = record.federation.personalization
    rule = (
        f"A filter of the fusion decoder becomes a site's own for good once its training and the lead's disagreed "
        f"{settings.patience} times without an agreement in between"
        + (f"; the first {settings.warm_up_rounds} rounds do not count." if settings.warm_up_rounds else ".")
    )
    shares = [personal_shares(record, site) for site in sites]
    largest = max(float(np.nanmax(share)) for share in shares)
    if largest == 0:
        return [Paragraph(rule), Paragraph(f"After {record.last_round} rounds no filter of any site is personal.")]
    overall = {site: 100 * overall_share(record, site) for site in sites}
    return [
        Paragraph(rule),
        Gallery([draw_curves(record, overall, "% of filters personal", noisy=False)]),
        Gallery(
            [draw_personal_filters(record, site, largest) for site in sites],
            "Share by decoder layer, from the coarsest scale (top) to the output; grey: the site did not train",
            size="many",
        ),
    ]


def _agreement_blocks(record: RunRecord) -> list[Block]:
    if problem := _no_judgement(record):
        return [problem]
    sites = [site for site in _judging_sites(record) if np.isfinite(record.by_layer(site, "agreement")).any()]
    if not sites:
        warm_up = record.federation.personalization.warm_up_rounds
        return [Missing(f"No round has been judged yet: that begins after round {warm_up + 1} has been trained.")]
    curves = {site: agreement_by_round(record, site) for site in sites}
    text = (
        "Cosine of how the lead's decoder and the site's own training changed a filter in a round: 1 is agreement, "
        f"0 none, below 0 contradiction. The map shows the mean over the last {LAST_JUDGEMENTS} judged rounds and over "
        "the filters of a layer that were still shared; grey: none was."
    )
    return [
        Paragraph(text),
        Gallery([draw_agreement(record, sites), draw_curves(record, curves, "mean agreement", from_zero=False)]),
    ]


def _finest_scale(record: RunRecord) -> int:
    """Return which scale is the finest that is calibrated, counted from 1; anchors are there of all scales."""
    return len(record.anchors) - len(record.attention[0].scale_entropy) + 1


def _entropy_table(record: RunRecord) -> Table:
    rows = [[seen.site, seen.case, *(f"{value:.3f}" for value in seen.scale_entropy)] for seen in record.attention]
    header = ["site", "case", *(f"scale {scale}" for scale in range(_finest_scale(record), len(record.anchors) + 1))]
    return Table(header, rows, "Mean entropy of attention over the slice, as a share of uniform attention", 2)


def _judging_sites(record: RunRecord) -> list[str]:
    return [site for site in record.sites if np.isfinite(record.by_layer(site, "personal")).any()]


def _no_judgement(record: RunRecord) -> Missing | None:
    method = record.federation.method
    if not method.exchange:
        return Missing("Every site trains alone in this run, so there is no lead to agree with. For that:", _SAME_SITES)
    if method.decoder != "partial":
        what = "wholly personal" if method.decoder == "personal" else "wholly shared"
        return Missing(f"The decoder is {what} in this run: no filter is judged. For that:", _SAME_SITES)
    if _judging_sites(record):
        return None
    if all(record.is_lead(turn["site"]) for turn in record.turns):
        return Missing("No site has finished a round yet.")
    text = (
        "The journal of this run, begun by an older version, does not say which filters are personal; a new run's does:"
    )
    return Missing(text, _AGAIN)


def _no_anchors(record: RunRecord) -> Missing:
    method = record.federation.method
    if not (method.exchange and method.anchors and record.federation.leads):
        return Missing("This run works without anchors. For a run with them:", _SAME_SITES)
    if record.last_round == 0:
        return Missing("No lead has finished a round yet; anchors come with the first.")
    return Missing(record.missing.get("anchors", "The leads have no anchors yet; they come with their first round."))
