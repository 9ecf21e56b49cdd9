"""From a federation file to a run that can start: every site's plans and preprocessed data are there and fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_results

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.federation.roster import Model
from nnunet_fedmepd.nnunet_plugin.folds import Fold
from nnunet_fedmepd.nnunet_plugin.initial_model import initial_model
from nnunet_fedmepd.nnunet_plugin.registration import register
from nnunet_fedmepd.nnunet_plugin.run_plans import plans_for_run
from nnunet_fedmepd.runtime.planned_site import NotPlannedError, PlannedSite, planned_site
from nnunet_fedmepd.runtime.run_folder import flat_differences
from nnunet_fedmepd.runtime.site_worker import SiteFiles

_TOLD = 3  # differences of a site's plans in a message


@dataclass(frozen=True)
class Prepared:
    """A federation whose plans are made, checked and ready to run.

    Attributes:
        federation: the file, with every site's modalities filled in.
        sites: site -> its files.
        model: the first model.
        plan_digests: site -> SHA-256 of its plans: a run that is resumed must find the same ones.
        settings: of the training, as the first site's plans and the file have them.
        folds: site -> the cases of its fold; over a network only the site itself knows them.
    """

    federation: Federation
    sites: Mapping[str, SiteFiles]
    model: Model
    plan_digests: Mapping[str, str]
    settings: TrainingSettings
    folds: Mapping[str, Fold] = field(default_factory=dict)


def prepare(federation: Federation) -> Prepared:
    """Find and check what `fedmepd plan` made.

    Raises:
        ConfigurationError: plans or preprocessed data of some sites are missing, damaged or of another federation, or
            the file says of sites what their data do not; all of them are listed.
    """
    register()
    planned: dict[str, PlannedSite] = {}
    problems, planning_helps = [], False
    for site in federation.site:
        try:
            planned[site.name] = planned_site(site, federation)
        except (ConfigurationError, RuntimeError, OSError) as error:
            problems.append(f"site {site.name!r} (dataset {site.dataset}): {error}")
            planning_helps |= isinstance(error, NotPlannedError)
    if not problems:
        problems = _differing_plans(planned)
        planning_helps = bool(problems)
    if problems:
        advice = "\nRun `fedmepd plan` with this file first." if planning_helps else ""
        raise ConfigurationError("The federation cannot run:\n  " + "\n  ".join(problems) + advice)
    first = next(iter(planned.values()))
    plans = plans_for_run(first.plans, federation)
    start = initial_model(plans, federation.planning.configuration, first.description, federation.seed)
    sites = [site.model_copy(update={"modalities": planned[site.name].modalities}) for site in federation.site]
    return Prepared(
        federation.model_copy(update={"site": tuple(sites)}),
        {name: own.files for name, own in planned.items()},
        Model(start.encoders, start.decoder, start.groups, start.anchor_shapes),
        {name: own.plans_digest() for name, own in planned.items()},
        federation.training_settings(first.settings),
        {name: own.fold for name, own in planned.items()},
    )


def default_run_folder(federation: Federation) -> Path:
    """Return where a run goes unless told otherwise: beside nnU-Net's results.

    Raises:
        ConfigurationError: nnUNet_results is not set.
    """
    return models_folder() / "federations" / federation.name


def models_folder() -> Path:
    """Return nnU-Net's folder of results, where every site's model is written.

    Raises:
        ConfigurationError: nnUNet_results is not set.
    """
    if not nnUNet_results.is_set():
        raise ConfigurationError(
            "The environment variable nnUNet_results is not set; set it to the folder for the models of all sites. "
            "They are written there whatever folder --run names."
        )
    return Path(str(nnUNet_results))


def _differing_plans(planned: Mapping[str, PlannedSite]) -> list[str]:
    """Return which sites' plans and labels are not those of the others; channels are compared by modality."""
    by_modality: dict[str, Any] = {}
    common, problems = None, []
    for name, own in planned.items():
        found, channels = own.common_content(), own.channel_contents()
        common = common or found
        expected = {modality: by_modality.setdefault(modality, values) for modality, values in channels.items()}
        changes = flat_differences({**common, "channels": expected}, {**found, "channels": channels})
        if changes:
            told = "; ".join(changes[:_TOLD]) + (f" and {len(changes) - _TOLD} more" if len(changes) > _TOLD else "")
            problems.append(f"site {name!r}: {own.files.plans} was not planned together with the others: {told}")
    return problems
