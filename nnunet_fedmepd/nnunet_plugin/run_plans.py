"""A site's plans with the switches of a federated run in them: one planning serves every method."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from typing import Any

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.nnunet_plugin.modality_plan import SECTION


def plans_for_run(plans: Mapping[str, Any], federation: Federation) -> dict[str, Any]:
    """Return plans for the network and the training that a federation file asks for."""
    method, result = federation.method, deepcopy(dict(plans))
    switches = {
        "n_anchors_per_class": method.n_anchors_per_class,
        "calibration": method.calibration if method.anchors else "off",
        "shared_encoder": method.encoder == "shared",
    }
    for configuration in result["configurations"].values():
        if "architecture" in configuration:
            configuration["architecture"]["arch_kwargs"].update(switches)
    planned = TrainingSettings.from_plans(plans, environment={})
    result[SECTION]["training"] = asdict(federation.training_settings(planned))
    return result
