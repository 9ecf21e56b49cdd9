"""What `fedmepd plan` made of one site: found, read and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fedmepd.config.federation import Federation, SiteTable
from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.nnunet_plugin.folds import Fold, find_fold
from nnunet_fedmepd.nnunet_plugin.joint_planning import site_terms
from nnunet_fedmepd.nnunet_plugin.modality_plan import SECTION, owned_modalities, planned_vocabulary
from nnunet_fedmepd.nnunet_plugin.planner import plans_name_of
from nnunet_fedmepd.runtime.site_worker import SiteFiles

# What is a site's own in its copy of the pooled plans: these keys, training settings edited by hand, and what comes in
# the order of its channels.
_OF_THE_SITE = ("dataset_name", "image_reader_writer")
_PER_CHANNEL = ("normalization_schemes", "use_mask_for_norm")
_INTENSITIES = "foreground_intensity_properties_per_channel"


class NotPlannedError(ConfigurationError):
    """What `fedmepd plan` makes is missing, damaged or of another federation: planning again helps."""


@dataclass(frozen=True)
class PlannedSite:
    """A site's plans and what they were made of.

    Attributes:
        files: where they lie.
        plans: the site's copy of the pooled plans.
        description: dataset.json.
        modalities: canonical, in the order of the channels.
        configuration: of the plans, the one that is trained, with what it inherits.
        settings: of the training, as the plans have them.
        fold: the cases to train on and to choose a model by.
    """

    files: SiteFiles
    plans: Mapping[str, Any]
    description: Mapping[str, Any]
    modalities: tuple[str, ...]
    configuration: Mapping[str, Any]
    settings: TrainingSettings
    fold: Fold

    def plans_digest(self) -> str:
        """Return the SHA-256 of the plans file."""
        return hashlib.sha256(self.files.plans.read_bytes()).hexdigest()

    def architecture(self) -> dict[str, Any]:
        """Return the network's architecture, without the site's modalities."""
        architecture = self.configuration["architecture"]
        kwargs = {key: value for key, value in architecture["arch_kwargs"].items() if key != "modalities"}
        return {**architecture, "arch_kwargs": kwargs}

    def common_content(self) -> dict[str, Any]:
        """Return what is the same in the plans of all sites that were planned together."""
        left_out = (*_OF_THE_SITE, _INTENSITIES, "configurations")
        return {
            "labels": site_terms(self.description, self.modalities).describe_labels(),
            **{key: value for key, value in self.plans.items() if key not in left_out},
            **{key: value for key, value in self.configuration.items() if key not in _PER_CHANNEL},
            SECTION: {key: value for key, value in self.plans[SECTION].items() if key != "training"},
            "architecture": self.architecture(),
        }

    def channel_contents(self) -> dict[str, dict[str, Any]]:
        """Return, per modality, what is the same in the plans of all sites that own it."""
        contents = {key: {str(i): value for i, value in enumerate(self.configuration[key])} for key in _PER_CHANNEL}
        contents[_INTENSITIES] = self.plans[_INTENSITIES]
        return {
            modality: {key: values.get(str(i)) for key, values in contents.items()}
            for i, modality in enumerate(self.modalities)
        }


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


def planned_site(site: SiteTable, federation: Federation) -> PlannedSite:
    """Return what `fedmepd plan` made of a site.

    Raises:
        NotPlannedError: something is missing, damaged or of another federation.
        ConfigurationError: the file says of the site what its data do not, or its fold cannot be trained.
    """
    files = site_files(site.name, federation)
    for file in (files.plans, files.dataset_json):
        if not file.is_file():
            raise NotPlannedError(f"{file} does not exist")
    plans, description = _read(files.plans), _read(files.dataset_json)
    configuration = _configuration(plans, files, federation)
    fold = _fold(configuration, files, federation)
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
    if (planned := tuple(configuration["architecture"]["arch_kwargs"]["modalities"])) != owned:
        raise NotPlannedError(
            f"{files.plans} has the channels {list(planned)}, but those of {files.dataset_json} are {list(owned)}"
        )
    _check_stated(site, owned, files, federation)
    return PlannedSite(files, plans, description, owned, configuration, settings, fold)


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


def _configuration(plans: Mapping[str, Any], files: SiteFiles, federation: Federation) -> dict[str, Any]:
    name = federation.planning.configuration
    if name not in plans.get("configurations", {}):
        raise NotPlannedError(f"{files.plans} has no configuration {name!r}")
    return PlansManager(dict(plans)).get_configuration(name).configuration


def _fold(configuration: Mapping[str, Any], files: SiteFiles, federation: Federation) -> Fold:
    folder = files.plans.parent / configuration["data_identifier"]
    if not folder.is_dir() or not any(folder.iterdir()):
        raise NotPlannedError(f"{folder} holds no preprocessed cases")
    return find_fold(files.plans.parent, folder, federation.run.fold)


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise NotPlannedError(f"{file} is no valid JSON: {error}") from None
