"""The method's named variants, and which switches each of them sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "fedmepd": {},
    "fedmema": {"decoder": "personal"},
    "fedavg": {
        "encoder": "shared",
        "decoder": "shared",
        "lead_role": "site",
        "site_weights": "cases",
        "anchors": False,
    },
    "local": {"exchange": False, "lead_role": "site", "anchors": False},
}
SWITCHES = frozenset(switch for switches in VARIANTS.values() for switch in switches)


def fill_in_variant(method: Mapping[str, Any]) -> dict[str, Any]:
    """Return a [method] table with the switches of its variant; those that the table sets itself win."""
    variant = method.get("variant", "fedmepd")
    return {**VARIANTS.get(variant if isinstance(variant, str) else "", {}), **method}


def without_switches(method: Mapping[str, Any]) -> dict[str, Any]:
    """Return a [method] table without its variant, and without all that any variant sets."""
    return {key: value for key, value in method.items() if key not in SWITCHES | {"variant"}}
