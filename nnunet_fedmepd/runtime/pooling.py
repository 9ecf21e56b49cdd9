"""The bound that federation tries to reach: per set of modalities, one model of the data of all sites that own them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import parse_federation
from nnunet_fedmepd.nnunet_plugin.planner import plans_name_of
from nnunet_fedmepd.nnunet_plugin.pooled_dataset import Donor, Pool, make_pooled_dataset
from nnunet_fedmepd.runtime.preparation import Prepared

_FIRST_ID = 900
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class PooledFederation:
    """Pools as sites that train alone, so that the same runtime trains them.

    Attributes:
        federation: of the pools.
        pool_of: site -> the pool with the site's modalities.
    """

    federation: Federation
    pool_of: Mapping[str, str]


def pool_sites(prepared: Prepared, preprocessed: Path, factor: int) -> PooledFederation:
    """Put the pooled datasets together and return the federation that trains on them.

    Args:
        prepared: a federation of sites that train alone.
        preprocessed: what serves as nnUNet_preprocessed for the pools.
        factor: how many times longer than a site a pool trains.

    Raises:
        ConfigurationError: a fold cannot be made.
        UnsupportedError: the preprocessed cases are not in nnU-Net's current format.
    """
    federation = prepared.federation
    donors = [
        Donor(site.name, prepared.sites[site.name].plans.parent, tuple(site.modalities or ()))
        for site in federation.site
    ]
    pools = {_name(donor.modalities, federation): donor for donor in reversed(donors)}  # the first site of each set
    tables = []
    for i, (name, model_site) in enumerate(sorted(pools.items())):
        pool = _pool(model_site, donors, federation)
        dataset = f"Dataset{_FIRST_ID + i}_pooled_{name}"
        make_pooled_dataset(pool, preprocessed / dataset)
        tables.append({"name": name, "dataset": dataset, "modalities": pool.modalities})
    return PooledFederation(
        _federation(federation, tables, factor),
        {donor.site: _name(donor.modalities, federation) for donor in donors},
    )


def _pool(model_site: Donor, donors: list[Donor], federation: Federation) -> Pool:
    return Pool(
        model_site.modalities,
        model_site,
        tuple(donor for donor in donors if set(donor.modalities) >= set(model_site.modalities)),
        plans_name_of(federation.planning.planner),
        federation.planning.configuration,
        federation.run.fold,
    )


def _federation(federation: Federation, tables: list[dict], factor: int) -> Federation:
    file = federation.model_dump()
    fold = "all" if federation.run.fold == "all" else 0
    changes = {
        "site": tables,
        "rounds": federation.rounds * factor,
        "run": {**file["run"], "fold": fold, "minimum_sites": 1},
    }
    return parse_federation({**file, **changes}, "the federation of pooled data")


def _name(modalities: tuple[str, ...], federation: Federation) -> str:
    return "-".join(_NO_NAME.sub("_", m) for m in federation.modalities if m in modalities)
