"""Training transforms that know absent modalities."""

from __future__ import annotations

from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform


class KeepBlankChannels(BasicTransform):
    """Runs other transforms and then blanks every channel that was blank before.

    Noise, brightness and contrast would otherwise give a scan that was never made an appearance.
    """

    def __init__(self, transforms: BasicTransform) -> None:
        super().__init__()
        self.transforms = transforms

    def apply(self, data_dict: dict, **params: Any) -> dict:
        blank = ~(data_dict["image"] != 0).flatten(1).any(1)
        data_dict = self.transforms(**data_dict)
        data_dict["image"][blank] = 0
        return data_dict
