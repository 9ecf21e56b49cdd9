"""What leaves a site, declared before anything does: phase by phase, and array by array once there are plans."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.federation.messages import Anchors, LeadUpdate, SiteUpdate, Update
from nnunet_fedmepd.federation.roster import Model, Participant
from nnunet_fedmepd.federation.wire import ManifestRow, manifest
from nnunet_fedmepd.maths.parameters import select, uniform_masks

NEVER = (
    "images, labels, names of cases or patients, dates",
    "anything about a single case, but at a site that has a single one",
    "the auxiliary decoder, calibration layers, personal filters, optimizer state, patience",
)


def declared(federation: Federation) -> Iterator[str]:
    """Yield, line by line, what leaves a site, and what never does."""
    planning, method = federation.planning, federation.method
    yield "In planning, once:"
    yield "  modalities, meaning of the labels, file ending"
    yield f"  how often each spacing (rounded to 1/{planning.steps_per_mm} mm) and size after cropping occurs, by axis"
    yield "  per modality, of foreground intensities: number, sum, sum of squares, range"
    yield f"  per modality, of foreground intensities: a histogram of {planning.intensity_bins} bins"
    if method.exchange:
        yield "In every round, from a site:"
        yield "  the encoders of its modalities" if method.encoder == "modality" else "  the shared encoder"
        if method.decoder == "partial":
            yield "  the filters of the fusion decoder that are not personal, which these are, and their importance"
        elif method.decoder == "shared":
            yield "  the fusion decoder, and its weight"
        yield "  the run's id, the site's name, the round, the number of training cases"
        if method.codec != "none":
            yield f"  parameters travel as differences from those handed over, by the codec {method.codec}"
        if method.lead_role == "lead" and federation.leads:
            anchors = ", and its anchors (class means of features over many voxels)" if method.anchors else ""
            yield f"In every round, from a lead: all encoders, the whole fusion decoder{anchors}"
    yield "Over a network, with every turn, for the coordinator's journal:"
    yield "  training loss, pseudo Dice, duration; by decoder layer how many filters are personal, and agreement"
    yield "Never:"
    yield from (f"  {what}" for what in NEVER)


def expected_rows(participant: Participant, model: Model, federation: Federation) -> list[ManifestRow]:
    """Return every array of a participant's update in a round in which no filter is personal yet."""
    encoders = model.encoders_of(participant.modalities)
    everything = uniform_masks(model.groups, True)
    update: Update
    if participant.is_lead:
        values = tuple(torch.zeros(shape) for shape in model.anchor_shapes)
        valid = torch.zeros(model.anchor_shapes[0][:2], dtype=torch.bool)
        anchors = Anchors(values, valid) if federation.method.anchors else None
        update = LeadUpdate("", participant.name, 1, 1, encoders, model.decoder, anchors)
    else:
        travels = federation.method.decoder != "personal"
        decoder = select(model.decoder, model.groups, everything) if travels else None
        importance = {group.name: torch.ones(group.n_filters) for group in model.groups} if travels else {}
        update = SiteUpdate("", participant.name, 1, 1, encoders, decoder, importance)
    return manifest(update)
