"""From a federation file to a run that can start: every site's plans and preprocessed data are there and fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fedmepd.config.federation import Federation, SiteTable
from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.federation.roster import Model
from nnunet_fedmepd.nnunet_plugin.folds import Fold, find_fold
from nnunet_fedmepd.nnunet_plugin.initial_model import initial_model
from nnunet_fedmepd.nnunet_plugin.joint_planning import site_terms
from nnunet_fedmepd.nnunet_plugin.modality_plan import SECTION, owned_modalities, planned_vocabulary
from nnunet_fedmepd.nnunet_plugin.planner import plans_name_of
from nnunet_fedmepd.nnunet_plugin.registration import register
from nnunet_fedmepd.nnunet_plugin.run_plans import plans_for_run
from nnunet_fedmepd.runtime.run_folder import flat_differences
from nnunet_fedmepd.runtime.site_worker import SiteFiles

# What is a site's own in its copy of the pooled plans: these keys, training settings edited by hand, and what comes in
# the order of its channels.
_OF_THE_SITE = ("dataset_name", "image_reader_writer")
_PER_CHANNEL = ("normalization_schemes", "use_mask_for_norm")
_INTENSITIES = "foreground_intensity_properties_per_channel"
_TOLD = 3  # differences of a site's plans in a message


class NotPlannedError(ConfigurationError):
    """What `fedmepd plan` makes is missing, damaged or of another federation: planning again helps."""


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


@dataclass(frozen=True)
class _PlannedSite:
    """What `fedmepd plan` made of a site, read and checked."""

    files: SiteFiles
    plans: Mapping[str, Any]
    description: Mapping[str, Any]
    modalities: tuple[str, ...]
    settings: TrainingSettings
    fold: Fold


def prepare(federation: Federation) -> Prepared:
    """Find and check what `fedmepd plan` made.

    Raises:
        ConfigurationError: plans or preprocessed data of some sites are missing, damaged or of another federation, or
            the file says of sites what their data do not; all of them are listed.
    """
    register()
    planned: dict[str, _PlannedSite] = {}
    problems, planning_helps = [], False
    for site in federation.site:
        try:
            planned[site.name] = _planned_site(site, federation)
        except (ConfigurationError, RuntimeError, OSError) as error:
            problems.append(f"site {site.name!r} (dataset {site.dataset}): {error}")
            planning_helps |= isinstance(error, NotPlannedError)
    if not problems:
        problems = _differing_plans(planned, federation.planning.configuration)
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
        {name: hashlib.sha256(own.files.plans.read_bytes()).hexdigest() for name, own in planned.items()},
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


def site_files(site: str, federation: Federation) -> SiteFiles:
    """Return where a site's plans and description are, or should be.

    Raises:
        ConfigurationError: nnU-Net does not know the dataset, or where to look for it.
    """
    try:
        dataset = str(maybe_convert_to_dataset_name(federation.site_named(site).dataset))
    except RuntimeError as error:  # nnU-Net goes on for a paragraph about its folders
        raise ConfigurationError(
            f"{str(error).split('. ')[0]} in nnU-Net's folders. Correct its number in the federation file, or "
            "nnUNet_raw and nnUNet_preprocessed."
        ) from None
    folder = Path(str(nnUNet_preprocessed)) / dataset
    return SiteFiles(dataset, folder / f"{plans_name_of(federation.planning.planner)}.json", folder / "dataset.json")


def check_site_files(files: SiteFiles, federation: Federation) -> Fold:
    """Check that a site's plans and preprocessed cases are there, and return the fold to train.

    Raises:
        NotPlannedError: something is missing or damaged.
        ConfigurationError: the fold cannot be trained.
    """
    for file in (files.plans, files.dataset_json):
        if not file.is_file():
            raise NotPlannedError(f"{file} does not exist")
    plans, configuration = _read(files.plans), federation.planning.configuration
    if configuration not in plans.get("configurations", {}):
        raise NotPlannedError(f"{files.plans} has no configuration {configuration!r}")
    folder = files.plans.parent / planned_configuration(plans, configuration)["data_identifier"]
    if not folder.is_dir() or not any(folder.iterdir()):
        raise NotPlannedError(f"{folder} holds no preprocessed cases")
    return find_fold(files.plans.parent, folder, federation.run.fold)


def planned_configuration(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Return a configuration of plans, with what it inherits."""
    return PlansManager(dict(plans)).get_configuration(configuration).configuration


def _planned_site(site: SiteTable, federation: Federation) -> _PlannedSite:
    files = site_files(site.name, federation)
    fold = check_site_files(files, federation)
    plans, description = _read(files.plans), _read(files.dataset_json)
    try:
        settings = TrainingSettings.from_plans(plans, environment={})
    except ConfigurationError as error:
        raise ConfigurationError(f"{files.plans}: {error}") from None
    canonical = federation.vocabulary.canonical
    if (planned := planned_vocabulary(plans).canonical) != canonical:
        raise NotPlannedError(
            f"{files.plans} was made for the modalities {list(planned)}, but the federation file has "
            f"{list(canonical)}, in this order"
        )
    owned = owned_modalities(description, federation.vocabulary, str(files.dataset_json))
    arch_kwargs = planned_configuration(plans, federation.planning.configuration)["architecture"]["arch_kwargs"]
    if (planned := tuple(arch_kwargs["modalities"])) != owned:
        raise NotPlannedError(
            f"{files.plans} has the channels {list(planned)}, but those of {files.dataset_json} are {list(owned)}"
        )
    _check_stated(site, owned, files, federation)
    return _PlannedSite(files, plans, description, owned, settings, fold)


def _check_stated(site: SiteTable, owned: tuple[str, ...], files: SiteFiles, federation: Federation) -> None:
    """Check what the federation file says of a site's modalities, as `fedmepd plan` does with the raw dataset."""
    vocabulary = federation.vocabulary
    stated = None if site.modalities is None else vocabulary.resolve_all(site.modalities, site.name)
    if stated not in (None, owned):
        raise ConfigurationError(
            f"the federation file states the modalities {list(stated or ())}, but the channels of "
            f"{files.dataset_json} are {list(owned)}, in this order. Correct the file, or leave `modalities` out."
        )
    if site.lead and (missing := [modality for modality in vocabulary.canonical if modality not in owned]):
        raise ConfigurationError(
            f"a lead owns every modality, but {files.dataset} has no {', '.join(missing)}. Correct `lead` in the file."
        )


def _differing_plans(planned: Mapping[str, _PlannedSite], configuration: str) -> list[str]:
    """Return which sites' plans and labels are not those of the others; channels are compared by modality."""
    by_modality: dict[str, Any] = {}
    common, problems = None, []
    for name, own in planned.items():
        found, channels = _shared_content(own, configuration)
        common = common or found
        expected = {modality: by_modality.setdefault(modality, values) for modality, values in channels.items()}
        changes = flat_differences({**common, "channels": expected}, {**found, "channels": channels})
        if changes:
            told = "; ".join(changes[:_TOLD]) + (f" and {len(changes) - _TOLD} more" if len(changes) > _TOLD else "")
            problems.append(f"site {name!r}: {own.files.plans} was not planned together with the others: {told}")
    return problems


def _shared_content(own: _PlannedSite, configuration: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is the same in the plans of all sites, and what is of every site that has a modality."""
    used = planned_configuration(own.plans, configuration)
    architecture = used["architecture"]
    kwargs = {key: value for key, value in architecture["arch_kwargs"].items() if key != "modalities"}
    left_out = (*_OF_THE_SITE, _INTENSITIES, "configurations")
    common = {
        "labels": site_terms(own.description, own.modalities).describe_labels(),
        **{key: value for key, value in own.plans.items() if key not in left_out},
        **{key: value for key, value in used.items() if key not in _PER_CHANNEL},
        SECTION: {key: value for key, value in own.plans[SECTION].items() if key != "training"},
        "architecture": {**architecture, "arch_kwargs": kwargs},
    }
    by_channel = {key: {str(i): value for i, value in enumerate(used[key])} for key in _PER_CHANNEL}
    by_channel[_INTENSITIES] = own.plans[_INTENSITIES]
    channels = {
        modality: {key: values.get(str(i)) for key, values in by_channel.items()}
        for i, modality in enumerate(own.modalities)
    }
    return common, channels


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise NotPlannedError(f"{file} is no valid JSON: {error}") from None
