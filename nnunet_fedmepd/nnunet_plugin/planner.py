"""nnU-Net's experiment planner for FedMEPDNet."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import nnunetv2
import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ZScoreNormalization
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunet_fedmepd.config.settings_tables import suggestion
from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet
from nnunet_fedmepd.nnunet_plugin.modality_plan import SECTION, owned_modalities, vocabulary_of
from nnunet_fedmepd.nnunet_plugin.normalization import TissueZScoreNormalization


class FedMEPDPlanner(ExperimentPlanner):
    """Plans `FedMEPDNet` as nnU-Net plans its U-Net: same fingerprint, same rules, another network and memory estimate.

    The estimate is that of a site which owns every canonical modality, so that all sites of a federation get the same
    topology, patch and batch size from the same fingerprint. A cascade is not planned.
    """

    default_plans_name = "FedMEPDPlans"
    # What can be planned; of a small image 3d_lowres is not. A subclass that plans others says so.
    plannable: tuple[str, ...] = ("2d", "3d_fullres", "3d_lowres")
    # Half of nnU-Net's widths: an encoder per modality then costs about what its one wide encoder costs.
    base_features, max_features_3d, max_features_2d = 16, 160, 256
    # Half the resolution: faster, and better in Dice (tests/benchmarks/results/earlier, evidence_small_full_auxiliary).
    auxiliary_scale = 1

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 8,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str | None = None,
        overwrite_target_spacing: list[float] | tuple[float, ...] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        if preprocessor_name == "DefaultPreprocessor":
            preprocessor_name = "FedMEPDPreprocessor"
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name or self.default_plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        source = f"{self.dataset_name}/dataset.json"
        self.vocabulary = vocabulary_of(self.dataset_json, source)
        self.modalities = owned_modalities(self.dataset_json, self.vocabulary, source)
        self.UNet_class = FedMEPDNet
        self.UNet_base_num_features = self.base_features
        self.UNet_max_features_3d = self.max_features_3d
        self.UNet_max_features_2d = self.max_features_2d

    def determine_reader_writer(self) -> type[BaseReaderWriter]:
        """Return nnU-Net's image reader; where a federation plans without images, the one for the file ending."""
        if self.dataset:
            return super().determine_reader_writer()
        return determine_reader_writer_from_dataset_json(self.dataset_json)

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(self) -> tuple[list[str], list[bool]]:
        """Return nnU-Net's choice for each channel; a z-score of the nonzero mask is ours, which keeps 0 for empty."""
        schemes, masked = super().determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        ours = {(ZScoreNormalization.__name__, True): TissueZScoreNormalization.__name__}
        return [ours.get(chosen, chosen[0]) for chosen in zip(schemes, masked, strict=True)], masked

    def static_estimate_VRAM_usage(  # noqa: N802  # nnU-Net's name, called on the instance
        self,
        patch_size: tuple[int, ...],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: tuple[str, ...],
    ) -> int:
        """Return the feature-map elements of one sample at a site with every canonical modality."""
        canonical = self.vocabulary.canonical
        everything = {**arch_kwargs, **self._federation_kwargs(canonical, arch_kwargs["n_stages"])}
        with torch.device("meta"):
            network = get_network_from_plans(
                arch_class_name, everything, arch_kwargs_req_import, len(canonical), output_channels, allow_init=False
            )
        return network.compute_conv_feature_map_size([int(n) for n in patch_size])

    def get_plans_for_configuration(
        self,
        spacing: np.ndarray | tuple[float, ...] | list[float],
        median_shape: np.ndarray | tuple[int, ...],
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict,
    ) -> dict:
        """Return nnU-Net's plan of one configuration, with this site's modalities in the network's arguments."""
        plan = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        arch_kwargs = plan["architecture"]["arch_kwargs"]
        arch_kwargs.update(self._federation_kwargs(self.modalities, arch_kwargs["n_stages"]))
        return plan

    def save_plans(self, plans: dict) -> None:
        """Save the plans with the federation's section; training settings edited by hand survive re-planning."""
        plans["configurations"].pop("3d_cascade_fullres", None)
        plans["configurations"].get("3d_lowres", {}).pop("next_stage", None)
        plans[SECTION] = {
            "canonical_modalities": list(self.vocabulary.canonical),
            "modality_aliases": dict(self.vocabulary.aliases),
            "training": kept_training_settings(self.dataset_name, self.plans_identifier) or asdict(TrainingSettings()),
        }
        super().save_plans(plans)

    def _federation_kwargs(self, modalities: tuple[str, ...], n_stages: int) -> dict[str, Any]:
        labels = self.dataset_json["labels"].values()
        return {
            "modalities": list(modalities),
            "canonical_modalities": list(self.vocabulary.canonical),
            "overlapping_regions": any(isinstance(label, (list, tuple)) and len(label) > 1 for label in labels),
            "n_anchors_per_class": 4,
            "calibration": "residual",
            "calibration_heads": 2,
            "calibration_head_width": None,
            "calibration_dropout": 0.0,
            "auxiliary_scale": min(self.auxiliary_scale, n_stages - 1),
        }


class FedMEPDTinyPlanner(FedMEPDPlanner):
    """`FedMEPDPlanner` with half its widths, at most 64 features: trains on a CPU in minutes."""

    default_plans_name = "FedMEPDTinyPlans"
    base_features, max_features_3d, max_features_2d = 8, 64, 64


def kept_training_settings(dataset: str, plans_name: str) -> dict[str, Any] | None:
    """Return the training settings in a dataset's plans, where some may be edited by hand; None without plans.

    Raises:
        ConfigurationError: the plans are damaged, or a setting cannot be used.
    """
    file = Path(nnUNet_preprocessed) / dataset / f"{plans_name}.json"
    if not file.is_file():
        return None
    try:
        plans = load_json(str(file))
    except ValueError as error:
        raise ConfigurationError(
            f"{file} is not valid JSON: {error}. Correct it, or remove it to plan with the default settings."
        ) from None
    return asdict(TrainingSettings.from_plans(plans, environment={}))


def planner_class(planner: str) -> type[FedMEPDPlanner]:
    """Return a planner class by its name.

    Raises:
        ConfigurationError: no such planner, or not one for `FedMEPDNet`.
    """
    found = recursive_find_python_class(
        str(Path(nnunetv2.__path__[0]) / "experiment_planning"), planner, "nnunetv2.experiment_planning"
    )
    if found is None or not issubclass(found, FedMEPDPlanner):
        ours = (FedMEPDPlanner.__name__, FedMEPDTinyPlanner.__name__)
        raise ConfigurationError(
            f"Planner {planner!r} is {'unknown' if found is None else 'not made for FedMEPDNet'}; expected "
            f"{', '.join(ours)} or a subclass{suggestion(planner, ours) or '.'}"
        )
    return found


def check_planning(planner: str, configuration: str) -> None:
    """Check that there is a planner of this name, and that it can plan the configuration.

    Raises:
        ConfigurationError: no such planner, or it never plans such a configuration.
    """
    plannable = planner_class(planner).plannable
    if configuration not in plannable:
        raise ConfigurationError(
            f"{planner} plans no configuration {configuration!r}; expected one of {', '.join(plannable)}. Change "
            "planning.configuration in the federation file."
        )


def plans_name_of(planner: str) -> str:
    """Return the name of the plans that a planner class makes.

    Raises:
        ConfigurationError: no such planner, or not one for `FedMEPDNet`.
    """
    return planner_class(planner).default_plans_name
