"""nnU-Net's preprocessing, with channels checked and blank channels kept blank."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.nnunet_plugin.modality_plan import check_channels

_NUMBERED = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")


class FedMEPDPreprocessor(DefaultPreprocessor):
    """`DefaultPreprocessor` that refuses wrong channels and leaves a blank channel at zero.

    nnU-Net takes image files as they come: a missing `_0001` silently shifts the channels behind it. And a
    normalisation such as that of CT turns a blank (not acquired) scan into something that is not blank.
    """

    def run_case(
        self,
        image_files: list[str],
        seg_file: str | None,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict | str,
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        """Preprocess one case from files; see `DefaultPreprocessor`.

        Raises:
            DatasetError: a scan is missing, one too many, or they are out of order.
            ModalityError: the dataset that the files lie in has its channels in another order than the model.
        """
        description: dict = load_json(dataset_json) if isinstance(dataset_json, str) else dataset_json
        modalities = configuration_manager.network_arch_init_kwargs["modalities"]
        check_channels(plans_manager.plans, modalities, description, plans_manager.dataset_name)
        check_image_files(image_files, modalities, description["file_ending"])
        self._check_dataset_of(image_files[0], plans_manager, modalities)
        return super().run_case(image_files, seg_file, plans_manager, configuration_manager, description)

    def run_case_npy(
        self,
        data: np.ndarray,
        seg: np.ndarray | None,
        properties: dict,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict | str,
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        """Preprocess one case from an array (M, X, Y, Z); see `DefaultPreprocessor`.

        Raises:
            DatasetError: the number of channels is not the number of modalities.
        """
        modalities = configuration_manager.network_arch_init_kwargs["modalities"]
        if len(data) != len(modalities):
            raise DatasetError(
                "An image array does not have the channels of the plans",
                expected=f"{len(modalities)} channels: {', '.join(modalities)}",
                found=f"{len(data)} channels",
                remedy="stack one image per modality, in this order; a scan that was not made is all zeros",
            )
        return super().run_case_npy(data, seg, properties, plans_manager, configuration_manager, dataset_json)

    def _normalize(
        self,
        data: np.ndarray,
        seg: np.ndarray,
        configuration_manager: ConfigurationManager,
        foreground_intensity_properties_per_channel: dict,
    ) -> np.ndarray:
        blank = [not channel.any() for channel in data]
        data = super()._normalize(data, seg, configuration_manager, foreground_intensity_properties_per_channel)
        data[blank] = 0
        return data

    @staticmethod
    def _check_dataset_of(image_file: str, plans_manager: PlansManager, modalities: Sequence[str]) -> None:
        """Check the order of the channels where the images lie in an nnU-Net dataset, which names them."""
        folder = Path(image_file).resolve().parent
        for description in (folder / "dataset.json", folder.parent / "dataset.json"):
            if description.is_file():
                found: dict[str, Any] = load_json(str(description))
                if "channel_names" in found:
                    check_channels(plans_manager.plans, tuple(modalities), found, str(description))
                return


def check_image_files(image_files: Sequence[str], modalities: Sequence[str], file_ending: str) -> None:
    """Check that a case has one file per modality, numbered 0000, 0001, ... without a gap.

    Files that do not end in four digits (a dataset.json may list any names) are counted only.

    Raises:
        DatasetError: naming the case and the missing or superfluous files.
    """
    stems = [Path(file).name.removesuffix(file_ending) for file in image_files]
    numbered = [_NUMBERED.match(stem) for stem in stems]
    case = numbered[0]["case"] if numbered and numbered[0] else (stems[0] if stems else None)
    wanted = [f"{i:04d}" for i in range(len(modalities))]
    found = [match["channel"] if match else "?" for match in numbered]
    if len(found) == len(wanted) and (found == wanted or "?" in found):
        return
    raise DatasetError(
        "A case does not have exactly one image per modality",
        case=case,
        file=Path(image_files[0]).parent if image_files else None,
        expected=", ".join(f"{case}_{n}{file_ending} ({m})" for n, m in zip(wanted, modalities, strict=True)),
        found=", ".join(Path(file).name for file in image_files) or "nothing",
        remedy="add the missing file; for a scan that was not made write a blank image with `fedmepd fill-missing`",
    )
