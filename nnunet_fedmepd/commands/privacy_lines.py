"""What `[method.privacy]` means for every site, in lines for the console."""

from __future__ import annotations

import math
from collections.abc import Callable

from nnunet_fedmepd.config.federation import Federation, PrivacyTable
from nnunet_fedmepd.federation.accounting import AccountantMissingError, spent_epsilon

_DIGITS = 3


def planned_lines(federation: Federation) -> list[str]:
    """Return what is protected, and what epsilon the whole run will spend at every site; nothing without privacy."""
    privacy = federation.method.privacy
    if privacy is None:
        return []
    if not federation.method.exchange:
        return ["privacy: nothing is exchanged, so there is nothing to protect"]
    return [
        f"privacy: every update is clipped at the site to norm {privacy.clipping_norm:g} and gets Gaussian noise of "
        f"standard deviation {privacy.clipping_norm * privacy.noise_multiplier:g}; the coordinator need not be trusted",
        "  neighbours: any two data sets of a site with equally many training cases",
        "  public: numbers of cases, what planning tells, times",
        *_site_lines(federation, privacy, "in the whole run", federation.updates_of),
    ]


def spent_lines(federation: Federation, updates_sent: Callable[[str], int]) -> list[str]:
    """Return the epsilon that was spent at every site so far; nothing without privacy.

    Args:
        federation: the federation.
        updates_sent: site -> updates that it gave away.
    """
    privacy = federation.method.privacy
    if privacy is None or not federation.method.exchange:
        return []
    return ["privacy spent:", *_site_lines(federation, privacy, "so far", updates_sent)]


def _site_lines(federation: Federation, privacy: PrivacyTable, when: str, n_updates: Callable[[str], int]) -> list[str]:
    names = [site.name for site in federation.site]
    lines = []
    for name in names:
        if federation.privacy_of(name) is None:
            lines.append(f"  {name}: not protected (protect_leads = false)")
            continue
        count = n_updates(name)
        updates = f"{count} update{'' if count == 1 else 's'} {when}"
        try:
            epsilon = rounded_up(spent_epsilon(privacy, count))
        except AccountantMissingError as error:
            lines.append(f"  {name}: {updates}; {error}")
            continue
        lines.append(f"  {name}: epsilon = {epsilon:g}, delta = {privacy.delta:g} ({updates})")
    return lines


def rounded_up(value: float) -> float:
    """Return a number that is not smaller, of three digits."""
    if value <= 0 or not math.isfinite(value):
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - _DIGITS + 1)
    return math.ceil(value / unit) * unit
