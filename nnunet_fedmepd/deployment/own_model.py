"""The model that a federation over a network left at a site, and the site's held-out cases."""

from __future__ import annotations

from nnunet_fedmepd.deployment.kit import SiteKit
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.nnunet_plugin.prediction import TrainedModel
from nnunet_fedmepd.runtime.finished_run import FinishedRun, full_name
from nnunet_fedmepd.runtime.owned_results import OWNER, results_folder
from nnunet_fedmepd.runtime.run_folder import read_json


def open_own_model(kit: SiteKit) -> FinishedRun:
    """Return the run as this site has it: a run of one site. Its folder is in the kit.

    Args:
        kit: of the site; nnU-Net's environment variables are set.

    Raises:
        ConfigurationError: the federation has not ended at this site, or the dataset is not here.
    """
    federation = kit.own_federation
    table = federation.site_named(kit.site)
    folder = results_folder(full_name(table.dataset), federation)
    file = TrainedModel(folder, "final").file
    if not (folder / OWNER).is_file() or not file.is_file():
        raise ConfigurationError(
            f"Site {kit.site} has no model of a federation that has ended: expected {file}. "
            f"`fedmepd site up {kit.folder}` goes on with the federation."
        )
    run_id = str(read_json(folder / OWNER)["run_id"])
    alone = federation.model_copy(update={"site": (table,)})
    return FinishedRun(kit.state_folder / run_id, run_id, alone, {kit.site: folder}, {})
