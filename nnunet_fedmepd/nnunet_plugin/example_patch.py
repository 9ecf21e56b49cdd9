"""A site's network as its state holds it, and a patch of its data to try it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet


@dataclass(frozen=True, eq=False)
class ExamplePatch:
    """A patch around a tumour.

    Attributes:
        case: it is from.
        image: (M, *patch) preprocessed.
        labels: (*patch).
    """

    case: str
    image: Tensor
    labels: np.ndarray


def site_network(
    plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> FedMEPDNet:
    """Return the network of a site's plans with these weights."""
    manager = PlansManager(dict(plans))
    chosen = manager.get_configuration(configuration)
    network: FedMEPDNet = get_network_from_plans(
        chosen.network_arch_class_name,
        chosen.network_arch_init_kwargs,
        chosen.network_arch_init_kwargs_req_import,
        len(chosen.network_arch_init_kwargs["modalities"]),
        manager.get_label_manager(dict(dataset_json)).num_segmentation_heads,
        allow_init=False,
        deep_supervision=True,
    )
    network.load_state_dict(weights)
    return network


def tumour_patch(plans: Mapping[str, Any], configuration: str, dataset: Path) -> ExamplePatch:
    """Return a patch of the plans' size around the foreground of the first preprocessed case.

    Args:
        plans: of the site.
        configuration: of nnU-Net.
        dataset: its folder in nnUNet_preprocessed.

    Raises:
        ConfigurationError: there are no preprocessed cases.
    """
    chosen = PlansManager(dict(plans)).get_configuration(configuration)
    folder = dataset / chosen.data_identifier
    if not folder.is_dir() or not any(folder.iterdir()):
        raise ConfigurationError(f"{folder} holds no preprocessed cases.")
    cases = infer_dataset_class(str(folder))
    case = min(cases.get_identifiers(str(folder)))
    data, labels, _, _ = cases(str(folder), [case]).load_case(case)
    image, labels = np.asarray(data[:]), np.asarray(labels[:])
    box = _box(labels[0], chosen.patch_size)
    patch, labels = (np.asarray(crop_and_pad_nd(array, box)) for array in (image, labels))
    if len(chosen.patch_size) == 2:
        patch, labels = patch[:, 0], labels[:, 0]
    return ExamplePatch(case, torch.from_numpy(patch).float(), labels[0])


def _box(labels: np.ndarray, patch_size: Sequence[int]) -> list[list[int]]:
    """Return the extent of a patch around the foreground; in two dimensions it is one slice thick."""
    voxels = np.argwhere(labels > 0)
    centre = voxels.mean(0).round().astype(int) if voxels.size else np.array(labels.shape) // 2
    size = [*[1] * (labels.ndim - len(patch_size)), *patch_size]
    return [[int(c) - s // 2, int(c) - s // 2 + int(s)] for c, s in zip(centre, size, strict=True)]
