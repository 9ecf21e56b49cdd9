"""From a federation file to a run that can start: every site's plans and preprocessed data are there and fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.federation.roster import Model
from nnunet_fedmepd.nnunet_plugin.folds import find_fold
from nnunet_fedmepd.nnunet_plugin.initial_model import initial_model
from nnunet_fedmepd.nnunet_plugin.modality_plan import owned_modalities, planned_vocabulary
from nnunet_fedmepd.nnunet_plugin.planner import plans_name_of
from nnunet_fedmepd.nnunet_plugin.registration import register
from nnunet_fedmepd.nnunet_plugin.run_plans import plans_for_run
from nnunet_fedmepd.runtime.site_worker import SiteFiles


@dataclass(frozen=True)
class Prepared:
    """A federation whose plans are made, checked and ready to run.

    Attributes:
        federation: the file, with every site's modalities filled in.
        sites: site -> its files.
        model: the first model.
        plan_digests: site -> SHA-256 of its plans: a run that is resumed must find the same ones.
    """

    federation: Federation
    sites: Mapping[str, SiteFiles]
    model: Model
    plan_digests: Mapping[str, str]


def prepare(federation: Federation) -> Prepared:
    """Find and check what `fedmepd plan` made.

    Raises:
        ConfigurationError: plans or preprocessed data of some sites are missing or of another federation; all of
            them are listed.
    """
    register()
    files, problems = {}, []
    for site in federation.site:
        try:
            files[site.name] = site_files(site.name, federation)
            check_site_files(files[site.name], federation)
        except (ConfigurationError, RuntimeError, OSError) as error:
            problems.append(f"site {site.name!r} (dataset {site.dataset}): {error}")
    problems += _differing_plans(files, federation) if not problems else []
    if problems:
        raise ConfigurationError(
            "The federation cannot run:\n  " + "\n  ".join(problems) + "\nRun `fedmepd plan` with this file first."
        )
    first = next(iter(files.values()))
    plans, description = plans_for_run(_read(first.plans), federation), _read(first.dataset_json)
    start = initial_model(plans, federation.planning.configuration, description, federation.seed)
    return Prepared(
        _with_modalities(federation, files),
        files,
        Model(start.encoders, start.decoder, start.groups, start.anchor_shapes),
        {name: hashlib.sha256(own.plans.read_bytes()).hexdigest() for name, own in files.items()},
    )


def default_run_folder(federation: Federation) -> Path:
    """Return where a run goes unless told otherwise: beside nnU-Net's results.

    Raises:
        ConfigurationError: nnUNet_results is not set.
    """
    if not nnUNet_results.is_set():
        raise ConfigurationError("The environment variable nnUNet_results is not set; set it, or pass --run FOLDER.")
    return Path(str(nnUNet_results)) / "federations" / federation.name


def site_files(site: str, federation: Federation) -> SiteFiles:
    """Return where a site's plans and description are, or should be.

    Raises:
        ConfigurationError: nnU-Net does not know the dataset, or where to look for it.
    """
    try:
        dataset = str(maybe_convert_to_dataset_name(federation.site_named(site).dataset))
    except RuntimeError as error:  # nnU-Net goes on for a paragraph about its folders
        raise ConfigurationError(f"{str(error).split('. ')[0]} in nnU-Net's folders") from None
    folder = Path(str(nnUNet_preprocessed)) / dataset
    return SiteFiles(dataset, folder / f"{plans_name_of(federation.planning.planner)}.json", folder / "dataset.json")


def check_site_files(files: SiteFiles, federation: Federation) -> None:
    """Check that a site's plans and preprocessed cases are there.

    Raises:
        ConfigurationError: something is missing.
    """
    for file in (files.plans, files.dataset_json):
        if not file.is_file():
            raise ConfigurationError(f"{file} does not exist")
    plans, configuration = _read(files.plans), federation.planning.configuration
    if configuration not in plans["configurations"]:
        raise ConfigurationError(f"{files.plans} has no configuration {configuration!r}")
    folder = files.plans.parent / _data_identifier(plans, configuration)
    if not folder.is_dir() or not any(folder.iterdir()):
        raise ConfigurationError(f"{folder} holds no preprocessed cases")
    find_fold(files.plans.parent, folder, federation.run.fold)


def _differing_plans(files: Mapping[str, SiteFiles], federation: Federation) -> list[str]:
    """Return which sites' plans do not give the first site's network."""
    topologies = {name: _topology(_read(own.plans), federation.planning.configuration) for name, own in files.items()}
    first = next(iter(topologies))
    return [
        f"site {name!r}: its plans give another network than those of site {first!r}; they were not planned together"
        for name, topology in topologies.items()
        if topology != topologies[first]
    ]


def _topology(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    planned = planned_configuration(plans, configuration)
    kwargs = {key: value for key, value in planned["architecture"]["arch_kwargs"].items() if key != "modalities"}
    return {"arch_kwargs": kwargs, "spacing": planned["spacing"], "patch_size": planned["patch_size"]}


def planned_configuration(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Return a configuration of plans, with what it inherits."""
    return PlansManager(dict(plans)).get_configuration(configuration).configuration


def _data_identifier(plans: Mapping[str, Any], configuration: str) -> str:
    return str(planned_configuration(plans, configuration)["data_identifier"])


def _with_modalities(federation: Federation, files: Mapping[str, SiteFiles]) -> Federation:
    sites = []
    for site in federation.site:
        own = files[site.name]
        vocabulary = planned_vocabulary(_read(own.plans))
        sites.append(
            site.model_copy(
                update={"modalities": owned_modalities(_read(own.dataset_json), vocabulary, str(own.dataset_json))}
            )
        )
    return federation.model_copy(update={"site": tuple(sites)})


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())
