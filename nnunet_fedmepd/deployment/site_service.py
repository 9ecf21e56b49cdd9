"""The long-lived process of a site: it trains, and answers what the engine's process hands it by the spool.

python -m nnunet_fedmepd.deployment.site_service KIT

SIGTERM ends it at once: every state on disk is whole at any moment. It has no handler, which nnU-Net's worker processes
would inherit: they could not be ended any more.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

from rich.console import Console

from nnunet_fedmepd.deployment.kit import SiteKit, load_site_kit
from nnunet_fedmepd.deployment.spool import Spool
from nnunet_fedmepd.errors import FedMEPDError

LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.1


def serve(kit: SiteKit, stop: threading.Event | None = None, overwrite: bool = False) -> None:
    """Check the site's dataset, then answer the coordinator's requests until the federation is done.

    Args:
        kit: of the site.
        stop: ends it before, after the request in work; None: nothing does.
        overwrite: replace models of other trainings in nnU-Net's results folder.

    Raises:
        ConfigurationError, DatasetError: the dataset is not what the federation file says.
        SpoolError: another process of this site is running.
        OSError: not even a short answer can be written to the disk.
    """
    spool, stop = Spool(kit.spool_folder), stop or threading.Event()
    with spool.serving():
        os.environ.update(kit.variables)
        # Late: they take seconds to import, in which requests may wait already.
        from nnunet_fedmepd.deployment.requests import Failed, ModelWritten, TurnTaken, encode_reply
        from nnunet_fedmepd.deployment.site_answers import SiteAnswers
        from nnunet_fedmepd.runtime.progress import logging_to

        with logging_to(kit.logs / "site.log", Console(soft_wrap=True, highlight=False)):
            answers = SiteAnswers(kit, _device(kit.device), overwrite)
            LOG.info("site %s is ready", kit.site)
            while not (stop.is_set() or answers.is_done):
                if (waiting := spool.waiting()) is None:
                    stop.wait(_POLL_SECONDS)
                    continue
                key, request = waiting
                reply = answers.answer(request)
                keep = isinstance(reply, TurnTaken | ModelWritten)
                try:
                    spool.answer(key, encode_reply(reply, answers.digest, key), keep)
                except OSError as error:
                    LOG.error("%s cannot be written: %s. What was trained is kept.", kit.spool_folder, error.strerror)
                    spool.answer(key, encode_reply(Failed("full disk"), answers.digest, key), False)


def _device(name: str):  # type: ignore[no-untyped-def]  # torch is imported late
    import torch

    from nnunet_fedmepd.runtime.devices import (
        claim_device,
        default_device,
        load_data_in_the_training_process,
        require_devices,
    )

    chosen = name or default_device()
    require_devices([chosen])
    device = claim_device(chosen, os.cpu_count() or 1)
    if device == "cpu":
        load_data_in_the_training_process()
    return torch.device(device)


def main(kit_folder: str) -> int:
    """Run the process of a site's kit; returns its exit code."""
    try:
        serve(load_site_kit(kit_folder))
    except FedMEPDError as error:
        print(f"fedmepd: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
