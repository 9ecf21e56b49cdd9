"""Sections on what a run achieved and cost: scores, cases, curves, traffic; or why something is not there."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import numpy as np

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.metrics import CONVENTIONS
from nnunet_fedmepd.evaluation.report.blocks import Block, Gallery, Missing, Paragraph, Picture, Section
from nnunet_fedmepd.evaluation.report.cases_picture import draw_case, typical_cases
from nnunet_fedmepd.evaluation.report.curves import draw_curves
from nnunet_fedmepd.evaluation.report.record import RunRecord
from nnunet_fedmepd.evaluation.report.scores import means_of_cases, score_tables
from nnunet_fedmepd.evaluation.report.traffic import MEGABYTE, traffic_table
from nnunet_fedmepd.pictures import label_colour


def scores_section(record: RunRecord) -> Section:
    """Return the tables of scores."""
    blocks: list[Block] = []
    scored = {score.site for score in record.scores}
    if scored:
        what = record.evaluation.path.relative_to(record.path)
        blocks.append(
            Paragraph(f"Every site's own model on the site's held-out cases ({what}/cases.csv). {CONVENTIONS}")
        )
        blocks += score_tables(record)
    left = [site for site in record.sites if site not in scored]
    if left:
        whose = "No model has" if not scored else f"The models of {', '.join(left)} have not"
        blocks.append(Missing(f"{whose} been evaluated on held-out cases yet. {_when(record)}", _evaluate(record)))
    return Section("scores", "Scores", blocks)


def cases_section(record: RunRecord) -> Section:
    """Return the best, the median and the worst case of every site."""
    blocks: list[Block] = list(_case_blocks(record))
    if not record.scores:
        text = f"There are no predictions to show, as nothing has been evaluated yet. {_when(record)}"
        blocks = [Missing(text, _evaluate(record))]
    return Section("cases", "Best, median and worst cases", blocks)


def curves_section(record: RunRecord) -> Section:
    """Return loss and pseudo Dice of every site over the rounds."""
    if not record.turns:
        return Section("curves", "Training", [Missing("No site has finished a round yet.")])
    pictures = [
        draw_curves(record, _by_site(record, "train_loss"), "training loss", from_zero=False),
        draw_curves(record, _by_site(record, "pseudo_dice"), "pseudo Dice"),
    ]
    on_training = record.federation.run.fold == "all"
    data = "the training cases themselves (the run uses all cases)" if on_training else "the fold's validation cases"
    text = (
        f"Loss is the mean of a round's last epoch. Pseudo Dice is nnU-Net's: on random patches of {data}, mean over "
        "the foreground classes; it shows the course, not the quality."
    )
    return Section("curves", "Training", [Paragraph(text), Gallery(pictures)])


def traffic_section(record: RunRecord) -> Section:
    """Return what a run cost."""
    if not record.turns:
        return Section("traffic", "Traffic and time", [Missing("No site has finished a round yet.")])
    sent = {site: values / MEGABYTE for site, values in _by_site(record, "bytes_sent").items()}
    blocks: list[Block] = [traffic_table(record)]
    pictures = [draw_curves(record, _by_site(record, "seconds"), "seconds a round")]
    if any(np.nansum(values) > 0 for values in sent.values()):
        pictures.insert(0, draw_curves(record, sent, "MB sent a round", noisy=False))
    else:
        blocks.append(Paragraph("Nothing is exchanged in this run: every site trains alone."))
    return Section("traffic", "Traffic and time", [*blocks, Gallery(pictures)])


def _case_blocks(record: RunRecord) -> Iterator[Block]:
    yield Paragraph("By mean Dice over the regions; reference above, prediction below, in planes through the tumour.")
    if "cases" in record.missing:
        yield Missing(record.missing["cases"])
    legend = [(name, label_colour(label)) for label, name in record.label_names.items()]
    for site in record.sites:
        try:
            pictures = list(_site_pictures(record, site))
        except DatasetError as error:
            yield Missing(f"The cases of site {site} cannot be shown. {' '.join(str(error).split())}")
            continue
        if pictures:
            yield Gallery(pictures, f"{site} ({_modality(record, site)})", legend, "many")
            legend = []


def _site_pictures(record: RunRecord, site: str) -> Iterator[Picture]:
    drawn = [score for score in record.scores if (site, score.case) in record.images]
    dice = means_of_cases(drawn, "dice", site)
    if not dice:
        return
    for name, case in typical_cases(dice).items():
        title = f"{name}: {case}, mean Dice {dice[case]:.3f}"
        yield draw_case(record.images[site, case], case, title, list(record.label_names))


def _modality(record: RunRecord, site: str) -> str:
    return next(files.modality for (owner, _), files in record.images.items() if owner == site)


def _by_site(record: RunRecord, key: str) -> dict[str, np.ndarray]:
    return {site: record.by_round(site, key) for site in record.sites if record.turns_of(site)}


def _when(record: RunRecord) -> str:
    return "This command does it:" if record.finished else "Once the run has ended, this command does it:"


def _evaluate(record: RunRecord) -> str:
    words = ["fedmepd", "evaluate", str(record.path)]
    if record.evaluation.checkpoint != "final":
        words += ["--checkpoint", record.evaluation.checkpoint]
    if record.evaluation.split != "test":
        words += ["--split", record.evaluation.split]
    return shlex.join(words)
