"""Who takes part: what sites say when they join, whether it fits, and the run that follows from it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nnunet_fedmepd import __version__
from nnunet_fedmepd.config.federation import Federation, SiteTable
from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.deployment.calls import Calls
from nnunet_fedmepd.deployment.received_plans import check_architecture
from nnunet_fedmepd.deployment.requests import Join, Joined, PlannedNetwork
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.federation.roster import Model
from nnunet_fedmepd.federation.storage import StateFileError, write_atomically
from nnunet_fedmepd.nnunet_plugin.initial_model import initial_model
from nnunet_fedmepd.nnunet_plugin.joint_planning import SiteTerms
from nnunet_fedmepd.nnunet_plugin.modality_plan import SECTION
from nnunet_fedmepd.nnunet_plugin.registration import register
from nnunet_fedmepd.nnunet_plugin.run_plans import plans_for_run
from nnunet_fedmepd.runtime.planning import check_terms
from nnunet_fedmepd.runtime.preparation import Prepared

LOG = logging.getLogger(__name__)
_ADAPTER = TypeAdapter(dict[str, Joined])
_TOLD = 50  # parts of plans, and characters of each: a site chooses what it sends


def roll_call(calls: Calls, federation: Federation) -> dict[str, Joined]:
    """Ask all sites who they are, and check that they fit together and the federation file.

    Raises:
        ConfigurationError: naming every site that does not fit, and why.
        SitesMissingError: a site did not answer, or failed.
    """
    joined = calls.all({site.name: Join for site in federation.site}, Joined, "The federation")
    problems = [problem for site in federation.site if (problem := _problem(site, joined[site.name], federation))]
    check_terms({name: own.terms for name, own in joined.items()}, federation.vocabulary, problems)
    for name, own in joined.items():
        LOG.info("site %s joins: %s", name, ", ".join(own.terms.modalities))
    return joined


def prepared_by(federation: Federation, joined: Mapping[str, Joined]) -> Prepared:
    """Return the run that follows from what the sites said.

    Raises:
        ConfigurationError: some sites are not planned, or not together.
    """
    register()
    networks = {name: own.planned for name, own in joined.items() if own.planned is not None}
    if missing := [name for name in joined if name not in networks]:
        raise ConfigurationError(
            f"Not planned yet: {', '.join(missing)}. Let the sites plan together: plan = true in the coordinator's kit."
        )
    if problems := _differing_plans(networks):
        raise ConfigurationError("The sites were not planned together:\n  " + "\n  ".join(problems))
    first = next(iter(networks.values()))
    check_architecture(first.architecture)
    sites = [site.model_copy(update={"modalities": joined[site.name].terms.modalities}) for site in federation.site]
    return Prepared(
        federation.model_copy(update={"site": tuple(sites)}),
        {},
        _first_model(federation, first, next(iter(joined.values())).terms),
        {name: own.digest for name, own in networks.items()},
        federation.training_settings(TrainingSettings()),  # what sites' plans say of them stays there
    )


def save_joined(file: Path, joined: Mapping[str, Joined]) -> None:
    """Write down who joined: a coordinator that is started again need not wait for all of them.

    Raises:
        StateFileError: the disk is full.
    """
    write_atomically(file, json.dumps({name: asdict(own) for name, own in joined.items()}, indent=1).encode())


def load_joined(file: Path) -> dict[str, Joined]:
    """Return who joined.

    Raises:
        StateFileError: damaged.
    """
    try:
        return _ADAPTER.validate_json(file.read_bytes())
    except ValidationError:
        raise StateFileError(f"{file} is damaged. Remove it: the sites are then asked again.") from None


def _problem(site: SiteTable, joined: Joined, federation: Federation) -> str | None:
    owned, canonical = joined.terms.modalities, federation.vocabulary.canonical
    if joined.version != __version__:
        return f"site {site.name!r} has nnunet-fedmepd {joined.version[:50]}; expected {__version__}, install the same."
    if unknown := [modality for modality in owned if modality not in canonical]:
        return f"site {site.name!r} has modalities {unknown}; expected some of {list(canonical)}."
    stated = None if site.modalities is None else federation.vocabulary.resolve_all(site.modalities, site.name)
    if stated not in (None, owned):
        return f"site {site.name!r} has the modalities {list(owned)}; the federation file states {list(stated or ())}."
    if site.lead and len(owned) < len(canonical):
        return f"site {site.name!r} is to lead, but has only {', '.join(owned)}; a lead owns every modality."
    return None


def _differing_plans(networks: Mapping[str, PlannedNetwork]) -> list[str]:
    """Return whose plans are not those of the sites before it; modalities are compared among their owners."""
    expected = next(iter(networks.values())).common
    seen: dict[str, str] = {}
    problems = []
    for name, own in networks.items():
        parts = {part for part in own.common.keys() | expected.keys() if own.common.get(part) != expected.get(part)}
        parts |= {modality for modality, digest in own.channels.items() if seen.setdefault(modality, digest) != digest}
        if parts:
            told = ", ".join(part[:_TOLD] for part in sorted(parts)[:_TOLD])
            problems.append(f"site {name!r} has other plans for {told}")
    return problems


def _first_model(federation: Federation, planned: PlannedNetwork, terms: SiteTerms) -> Model:
    configuration = federation.planning.configuration
    plans: dict[str, Any] = {
        "configurations": {configuration: {"architecture": planned.architecture}},
        "label_manager": "LabelManager",
        SECTION: {},
    }
    description: dict[str, Any] = {"labels": dict(terms.labels)}
    if terms.regions_class_order is not None:
        description["regions_class_order"] = list(terms.regions_class_order)
    start = initial_model(plans_for_run(plans, federation), configuration, description, federation.seed)
    return Model(start.encoders, start.decoder, start.groups, start.anchor_shapes)
