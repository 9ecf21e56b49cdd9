"""What is checked of plans that came over the network before anything is made of them.

nnU-Net builds networks from names in its plans: whoever could write any name there could have any function called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet

NETWORK = f"{FedMEPDNet.__module__}.{FedMEPDNet.__qualname__}"
IMPORTED = ("conv_op", "norm_op", "dropout_op", "nonlin")
IMPORTABLE = frozenset(
    [f"torch.nn.modules.conv.Conv{n}d" for n in (2, 3)]
    + [f"torch.nn.modules.instancenorm.InstanceNorm{n}d" for n in (2, 3)]
    + [f"torch.nn.modules.dropout.Dropout{n}d" for n in (2, 3)]
    + ["torch.nn.LeakyReLU"]
)
_NAME = re.compile(r"[\w.-]{1,100}")


def check_received_plans(plans: Mapping[str, Any], plans_name: str) -> None:
    """Check that plans name nothing but what the installed planner names.

    Args:
        plans: from the coordinator.
        plans_name: that is expected; it becomes the name of a file.

    Raises:
        ConfigurationError: they name something else.
    """
    _require(plans.get("plans_name") == plans_name, f"the plans' name is not {plans_name!r}")
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict):
        raise ConfigurationError("Plans that were received are refused: they have no configurations.")
    for name, configuration in configurations.items():
        _require(isinstance(configuration, dict), f"configuration {name[:100]!r} is no table")
        folder = configuration.get("data_identifier", "none")
        _require(isinstance(folder, str) and _NAME.fullmatch(folder), "a data_identifier is no plain name")
        if "architecture" in configuration:
            check_architecture(configuration["architecture"])


def check_architecture(architecture: Any) -> None:
    """Check that an architecture is built by this package, from what it is known to import.

    Raises:
        ConfigurationError: it names something else.
    """
    valid = isinstance(architecture, dict) and isinstance(architecture.get("arch_kwargs"), dict)
    _require(valid, "an architecture is no table of settings")
    _require(architecture.get("network_class_name") == NETWORK, f"the network is not {NETWORK}")
    imported = architecture.get("_kw_requires_import")
    _require(isinstance(imported, list) and set(imported) <= set(IMPORTED), "other settings than known are imported")
    for key in imported:
        named = architecture["arch_kwargs"].get(key)
        _require(named is None or named in IMPORTABLE, f"{key} is {str(named)[:100]!r}; expected one of torch's layers")


def _require(holds: Any, otherwise: str) -> None:
    if not holds:
        raise ConfigurationError(f"Plans that were received are refused: {otherwise}.")
