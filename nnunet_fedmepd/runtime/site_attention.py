"""Tries every site's network, as its last state holds it, on a patch of the site's own data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.errors import ConfigurationError, FedMEPDError
from nnunet_fedmepd.evaluation.report.record import SliceAttention
from nnunet_fedmepd.federation.tensors import take
from nnunet_fedmepd.networks.attention import attend, relative_entropy
from nnunet_fedmepd.nnunet_plugin.example_patch import site_network, tumour_patch
from nnunet_fedmepd.nnunet_plugin.registration import register
from nnunet_fedmepd.nnunet_plugin.run_plans import plans_for_run
from nnunet_fedmepd.runtime.planned_site import site_files
from nnunet_fedmepd.runtime.run_folder import RunFolder, read_json


def slice_attention(
    folder: RunFolder,
    federation: Federation,
    sites: Sequence[str],
    missing: dict[str, str],
    announce: Callable[[str], None] = lambda what: None,
) -> list[SliceAttention]:
    """Return one slice of every site that calibrates; `missing` is told why some cannot be had.

    Args:
        folder: of the run.
        federation: of the run.
        sites: that have trained.
        missing: gets an entry `attention`.
        announce: is told whose network is tried next.
    """
    register()
    seen, problems = [], []
    for site in sites:
        announce(f"attention of site {site}")
        try:
            if (result := _attention(folder, federation, site)) is not None:
                seen.append(result)
        except (FedMEPDError, RuntimeError, OSError) as error:
            problems.append(f"{site}: {str(error).splitlines()[0].rstrip('.')}")
    if problems:
        missing["attention"] = (
            f"The network of some sites could not be tried. {'; '.join(problems)}. Set nnUNet_preprocessed to the "
            "folder that the run was trained from."
        )
    elif not seen:
        missing["attention"] = "No site calibrates by anchors yet; sites do from the round after the first."
    return seen


def _attention(folder: RunFolder, federation: Federation, site: str) -> SliceAttention | None:
    newest = folder.site(site).load_newest()
    if newest is None or not newest[0]["training/network/calibrations.0.in_use"]:
        return None
    files = site_files(site, federation)
    plans_text = files.plans.read_bytes()
    if hashlib.sha256(plans_text).hexdigest() != read_json(folder.path / "run.json")["identity"]["plans"][site]:
        raise ConfigurationError(f"{files.plans} is not what the run was started with.")
    plans, configuration = plans_for_run(json.loads(plans_text), federation), federation.planning.configuration
    weights = take(take(newest[0], "training"), "network")
    network = site_network(plans, configuration, json.loads(files.dataset_json.read_bytes()), weights)
    patch = tumour_patch(plans, configuration, files.plans.parent)
    attention = attend(network, patch.image)
    if attention is None:
        return None
    middle = slice(None) if patch.labels.ndim == 2 else patch.labels.shape[0] // 2
    channel = max(range(len(network.modalities)), key=lambda i: federation.modalities.index(network.modalities[i]))
    return SliceAttention(
        site,
        patch.case,
        network.modalities[channel],
        patch.image[channel][middle].numpy(),
        patch.labels[middle],
        attention[0].sum(1).numpy(),
        relative_entropy(attention[0]).numpy(),
        tuple(float(relative_entropy(scale).mean()) for scale in attention),
    )
