"""A deployment of the small federation on this machine: the commands of the README, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.deployment.init import Place, make_kits
from nnunet_fedmepd.deployment.processes import id_file
from nnunet_fedmepd.runtime.run_folder import RunFolder
from tests.conftest import NnunetPaths
from tests.deployment import made_kits
from tests.deployment.small_kits import write_toml

SECONDS = 900.0


class RealDeployment:
    """Coordinator and sites, each with its own proxy and certificates, on ports that are free.

    Args:
        folder: for the kits and what is printed.
        federation: whose datasets lie in `paths`.
        paths: nnU-Net's folders, of all sites.
        host: by which sites reach the coordinator.
        before: `coordinator`, or site -> what to put before its command, as where it runs in another network.
        coordinator: values for the coordinator's kit.toml.
    """

    def __init__(
        self,
        folder: Path,
        federation: Federation,
        paths: NnunetPaths,
        host: str = "127.0.0.1",
        before: Mapping[str, Sequence[str]] | None = None,
        **coordinator: object,
    ) -> None:
        folder.mkdir()
        self.folder, self.kits, self.federation = folder, folder / "kits", federation
        self.run = RunFolder(self.kits / "coordinator" / "run")
        self.before = before or {}
        self.terminals: dict[str, subprocess.Popen[bytes]] = {}
        write_toml(folder / "federation.toml", federation)
        place = Place(host, made_kits.free_port(), made_kits.free_port(), made_kits.free_port())
        make_kits(folder / "federation.toml", self.kits, place)
        _change(self.kit("coordinator") / "kit.toml", coordinator)
        own = {folder.name.lower(): str(folder) for folder in (paths.raw, paths.preprocessed, paths.results)}
        for site in federation.site:
            lines = [f"{key} = {json.dumps(value)}\n" for key, value in {**own, "device": "cpu"}.items()]
            (self.kit(site.name) / "site.toml").write_text("".join(lines))

    def __enter__(self) -> RealDeployment:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.terminals):
            self.terminals[name].terminate()
        for name in list(self.terminals):
            self.terminals.pop(name).wait(120)

    def kit(self, name: str) -> Path:
        """Return the kit of `coordinator`, or of a site."""
        return self.kits / "coordinator" if name == "coordinator" else self.kits / "sites" / name

    def start(self, *names: str) -> None:
        """Start `coordinator`, or sites; all of them without names."""
        for name in names or ("coordinator", *(site.name for site in self.federation.site)):
            command = ["deploy", "up"] if name == "coordinator" else ["site", "up"]
            self.run_module(name, "nnunet_fedmepd", *command, str(self.kit(name)))

    def run_module(self, name: str, module: str, *words: str) -> None:
        """Run a module in the terminal of `coordinator`, or of a site."""
        command = [*self.before.get(name, ()), sys.executable, "-m", module, *words]
        with (self.folder / f"{name}.txt").open("ab") as output:
            self.terminals[name] = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def kill(self, name: str, process: str) -> None:
        """Kill a process of a kit: nothing of it can tidy up."""
        os.kill(int(json.loads(id_file(self.kit(name)).read_bytes())[process]), signal.SIGKILL)

    def kill_app(self) -> None:
        """Kill the coordinator's app."""
        os.kill(self.status()["process"], signal.SIGKILL)

    def kill_all(self, name: str) -> None:
        """Kill everything of a kit, as when its machine loses power."""
        self._signal_all(name, signal.SIGKILL)
        self.terminals.pop(name).wait()

    @contextlib.contextmanager
    def standing_still(self, name: str) -> Iterator[None]:
        """Stop everything of a kit in the block, as when its machine is suspended, or moved to another host."""
        self._signal_all(name, signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal_all(name, signal.SIGCONT)

    def _signal_all(self, name: str, what: signal.Signals) -> None:
        groups = json.loads(id_file(self.kit(name)).read_bytes()).values()
        self.terminals[name].send_signal(what)  # first: it starts again what has ended
        for group in groups:  # each with what it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, what)

    def wait(self, condition: Callable[[], object], seconds: float = SECONDS) -> None:
        """Wait until a condition holds."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, "\n".join(self.printed().values())
            time.sleep(0.05)

    def status(self) -> dict[str, Any]:
        """Return the run's status; empty before the first round."""
        file = self.run.path / "status.json"
        return json.loads(file.read_bytes()) if file.is_file() else {}

    def is_finished(self) -> bool:
        """Return whether the federation has ended."""
        return bool(self.status().get("state") == "finished")

    def is_training(self, site: str, number: int) -> bool:
        """Return whether a site has its turn in a round."""
        status = self.status()
        asked = status.get("round") == number and site in status.get("training", ())
        return asked and any(not f.suffix for f in (self.kit(site) / "spool" / "requests").iterdir())

    def lines(self, number: int, kind: str = "train_loss") -> dict[str, dict[str, Any]]:
        """Return the journal's lines of a round by site: of turns, or those with `missed` or `refused` in them."""
        return {line["site"]: line for line in self.run.journal() if line["round"] == number and kind in line}

    def trained(self, site: str, number: int) -> int:
        """Return how often a site trained a round to its end; what it tells of it again is the same line again."""
        log = self.kit(site) / "logs" / "site.log"
        text = log.read_text() if log.is_file() else ""
        return len(set(re.findall(rf"round {number}/\d+  {site}: loss.*", text)))

    def printed(self) -> Mapping[str, str]:
        """Return the end of what each terminal shows."""
        return {file.stem: f"{file.stem}: {file.read_text()[-3000:]}" for file in self.folder.glob("*.txt")}


def _change(file: Path, values: Mapping[str, object]) -> None:
    kept = [line for line in file.read_text().splitlines() if line.split(" = ")[0] not in values]
    file.write_text("\n".join([*kept, *(f"{key} = {json.dumps(value)}" for key, value in values.items())]) + "\n")
