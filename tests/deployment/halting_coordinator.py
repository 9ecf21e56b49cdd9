"""A coordinator that halts at a chosen place in a chosen round, for good, so that it can be killed there.

python -m tests.deployment.halting_coordinator KIT PLACE ROUND

It is started as `fedmepd deploy up` starts one; only its app is another, which changes the place before it runs ours.
The file KIT/halted tells that it is there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from nnunet_fedmepd.deployment.kit import KIT_VARIABLE, load_coordinator_kit
from nnunet_fedmepd.deployment.processes import ended_by_signals
from nnunet_fedmepd.deployment.starting import bring_up_coordinator
from tests.deployment.loopback import APP
from tests.processes import finding_tests

AGGREGATING, SAVING = "aggregating", "saving"
HALTED = "halted"
_PLACE, _ROUND = "FEDMEPD_HALTS_WHEN", "FEDMEPD_HALTS_IN_ROUND"


def _halt() -> None:
    Path(os.environ[KIT_VARIABLE], HALTED).touch()
    Event().wait()  # as one waits who sends to a superlink that is gone: no signal comes through


def _change_aggregating(number: int) -> None:
    from nnunet_fedmepd.federation import coordinator

    aggregate = coordinator.Round.aggregate

    def halting(self: Any) -> None:
        if self.number == number:  # the decoder is the mean of the sites' by then, the encoders are not
            coordinator.encoder_means = lambda *_: _halt()
        aggregate(self)

    coordinator.Round.aggregate = halting  # type: ignore[method-assign]


def _change_saving(number: int) -> None:
    fsync = os.fsync

    def halting(file: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{file}")).name.startswith(f"round_{number:05d}.state."):
            os.ftruncate(file, os.fstat(file).st_size // 2)  # the other half has not come to the disk
            _halt()
        fsync(file)

    os.fsync = halting


_CHANGES: dict[str, Callable[[int], None]] = {AGGREGATING: _change_aggregating, SAVING: _change_saving}


def server_app() -> Any:
    """Return our app, the chosen place changed."""
    _CHANGES[os.environ[_PLACE]](int(os.environ[_ROUND]))
    from nnunet_fedmepd.deployment.flower.server_app import app

    return app


def main(kit_folder: str, place: str, number: str) -> None:
    """Bring the coordinator of a kit up."""
    kit = load_coordinator_kit(kit_folder)
    os.environ.update({_PLACE: place, _ROUND: number, **finding_tests()})
    app = kit.folder / "tmp" / "halting_app"
    own = {
        "foreign/server.py": "from tests.deployment.halting_coordinator import server_app\n\napp = server_app()\n",
        "foreign/client.py": "from flwr.clientapp import ClientApp\n\napp = ClientApp()\n",
    }
    for name, text in {**APP, **own}.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(text)
    with ended_by_signals():
        bring_up_coordinator(kit, app, print)


if __name__ == "__main__":
    main(*sys.argv[1:])
