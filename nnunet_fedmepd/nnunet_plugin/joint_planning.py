"""The plans that nnU-Net makes for all sites together, and each site's copy of them.

nnU-Net plans a dataset on disk. Here it plans a virtual one, with every canonical modality and no image, in a
temporary folder, from the pooled fingerprint (`maths.fingerprints`): no site's data are needed.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_fedmepd.config.cross_checks import federation_vocabulary as federation_vocabulary  # noqa: PLC0414
from nnunet_fedmepd.errors import ModalityError
from nnunet_fedmepd.modalities import ModalityVocabulary
from nnunet_fedmepd.nnunet_plugin.environment import environment
from nnunet_fedmepd.nnunet_plugin.modality_plan import SECTION, planned_vocabulary
from nnunet_fedmepd.nnunet_plugin.planner import planner_class

VIRTUAL_DATASET = "Dataset000_Federation"
_PER_CHANNEL = ("normalization_schemes", "use_mask_for_norm")
_INTENSITIES = "foreground_intensity_properties_per_channel"


@dataclass(frozen=True)
class SiteTerms:
    """What a site says about its dataset before planning: what its labels mean, and what it owns.

    Attributes:
        modalities: canonical names in the order of its channels.
        labels: of dataset.json, label maps or regions.
        regions_class_order: of dataset.json, where the labels are regions.
        file_ending: of its images.
    """

    modalities: tuple[str, ...]
    labels: Mapping[str, Any]
    regions_class_order: tuple[int, ...] | None
    file_ending: str

    def describe(self) -> list[str]:
        """Return, line by line, everything that is said."""
        return [
            f"modalities: {', '.join(self.modalities)}",
            *self.describe_labels(),
            f"file ending: {self.file_ending}",
        ]

    def describe_labels(self) -> list[str]:
        """Return what the labels mean, in their order, which is that of the network's maps."""
        lines = [f"labels: {json.dumps(self.labels)}"]
        if self.regions_class_order is not None:
            lines.append(f"regions_class_order: {list(self.regions_class_order)}")
        return lines


def site_terms(description: Mapping[str, Any], modalities: tuple[str, ...]) -> SiteTerms:
    """Return the terms of a dataset.json."""
    order = description.get("regions_class_order")
    return SiteTerms(
        modalities, description["labels"], None if order is None else tuple(order), str(description["file_ending"])
    )


def pooled_plans(
    fingerprint: Mapping[str, Any],
    n_cases: int,
    terms: SiteTerms,
    vocabulary: ModalityVocabulary,
    planner: str = "FedMEPDPlanner",
    gpu_memory_gb: float = 8.0,
) -> dict[str, Any]:
    """Return the plans for a site with every canonical modality.

    Args:
        fingerprint: of all sites' cases, its channels in canonical order.
        n_cases: training cases of all sites.
        terms: of any site: labels are the same at all.
        vocabulary: the federation's modalities.
        planner: class name, `FedMEPDPlanner` or a subclass.
        gpu_memory_gb: that a training may take.

    Raises:
        ConfigurationError: no such planner.
    """
    description = {
        "channel_names": {str(i): modality for i, modality in enumerate(vocabulary.canonical)},
        SECTION: {"canonical_modalities": vocabulary.canonical, "modality_aliases": dict(vocabulary.aliases)},
        "labels": dict(terms.labels),
        "numTraining": n_cases,
        "file_ending": terms.file_ending,
        "dataset": {},  # nnU-Net's list of cases
    }
    if terms.regions_class_order is not None:
        description["regions_class_order"] = list(terms.regions_class_order)
    chosen = planner_class(planner)
    with _nnunet_folders() as (raw, preprocessed), contextlib.redirect_stdout(io.StringIO()):
        (raw / "dataset.json").write_text(json.dumps(description))
        (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
        made = chosen(VIRTUAL_DATASET, gpu_memory_target_in_gb=gpu_memory_gb)
        made.plan_experiment()
        return json.loads((preprocessed / f"{made.plans_identifier}.json").read_text())


def plans_for_site(plans: Mapping[str, Any], dataset: str, modalities: Sequence[str], reader: str) -> dict[str, Any]:
    """Return a site's copy of the pooled plans: its channels in its order, all else as planned together.

    Args:
        plans: from `pooled_plans`.
        dataset: the site's full nnU-Net name.
        modalities: canonical names in the order of the site's channels.
        reader: name of nnU-Net's class that reads the site's images.

    Raises:
        ModalityError: the plans do not know one of the modalities.
    """
    canonical = planned_vocabulary(plans).canonical
    if unknown := [modality for modality in modalities if modality not in canonical]:
        raise ModalityError(
            f"{dataset} has modalities {unknown} that were not planned; expected some of {list(canonical)}."
        )
    channels = [canonical.index(modality) for modality in modalities]
    own = deepcopy(dict(plans))
    own["dataset_name"], own["image_reader_writer"] = dataset, reader
    own[_INTENSITIES] = {str(i): own[_INTENSITIES][str(channel)] for i, channel in enumerate(channels)}
    for configuration in own["configurations"].values():
        for key in _PER_CHANNEL:
            if key in configuration:  # a configuration of a subclassed planner may inherit it
                configuration[key] = [configuration[key][channel] for channel in channels]
        if "architecture" in configuration:
            configuration["architecture"]["arch_kwargs"]["modalities"] = list(modalities)
    return own


@contextlib.contextmanager
def _nnunet_folders() -> Iterator[tuple[Path, Path]]:
    """Let nnU-Net, which takes its folders from the environment, find the virtual dataset in a temporary place."""
    with tempfile.TemporaryDirectory(prefix="fedmepd_planning_") as folder:
        places = {name: Path(folder) / name for name in ("nnUNet_raw", "nnUNet_preprocessed")}
        for place in places.values():
            (place / VIRTUAL_DATASET).mkdir(parents=True)
        # nnU-Net's planner sets as many threads as there are augmentation workers, and cannot with 0.
        variables = {**{name: str(place) for name, place in places.items()}, "nnUNet_n_proc_DA": "1"}
        with environment(variables):
            yield (places["nnUNet_raw"] / VIRTUAL_DATASET, places["nnUNet_preprocessed"] / VIRTUAL_DATASET)
