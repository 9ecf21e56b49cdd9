"""What of nnU-Net's plans a trained model depends on: a model is of use with plans that say the same only."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Mapping
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fedmepd.networks.fedmepd_net import FedMEPDNet
from nnunet_fedmepd.nnunet_plugin.modality_plan import SECTION


def differences_between_models(there: Mapping[str, Any], here: Mapping[str, Any], configuration: str) -> list[str]:
    """Return in what predictions by two plans' models differ, weights aside: a phrase each."""
    return _differences(_of_model(there, configuration), _of_model(here, configuration))


def differences_between_networks(there: Mapping[str, Any], here: Mapping[str, Any], configuration: str) -> list[str]:
    """Return in what the networks of two plans differ, a phrase each."""
    return _differences(_of_network(there, configuration), _of_network(here, configuration))


def _of_model(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    general = {k: v for k, v in plans.items() if k not in ("configurations", "continue_training", SECTION)}
    chosen = dict(PlansManager(dict(plans)).get_configuration(configuration).configuration)
    del chosen["architecture"]
    return {**general, **chosen, **_of_network(plans, configuration)}


def _of_network(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Return a network's arguments; those that plans do not name have their defaults."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(FedMEPDNet).parameters.items()}
    return {**defaults, **PlansManager(dict(plans)).get_configuration(configuration).network_arch_init_kwargs}


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {reprlib.repr(there.get(name))} there, {reprlib.repr(here.get(name))} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
