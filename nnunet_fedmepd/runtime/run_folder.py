"""The folder of a federated run: its lock, its identity, its states, its journal.

RUN/run.json              identity: id, federation file and plans that it was started with
RUN/status.json           what it is doing now
RUN/layers.json           the decoder's layers, in the order of the journal's lists
RUN/rounds.jsonl          one line per site and round
RUN/coordinator/          state after each of the last rounds
RUN/sites/NAME/           state after each of the last rounds, and nnU-Net's console output
RUN/lock                  held while a process works here
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.federation.storage import StateFileError, load_state, save_state, write_atomically
from nnunet_fedmepd.networks.decoder_layers import DecoderLayer

# The last state but one is kept: if the last is damaged, a run goes on from there.
KEPT_STATES = 2
_RESTORE = "Restore it from a backup, or start a new run with --run FOLDER."


class RunError(FedMEPDError):
    """A run's folder cannot be used as asked."""


class StateFiles:
    """The states of one party, one file a round.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rounds(self) -> list[int]:
        """Return the rounds whose state is there, ascending."""
        return sorted(int(file.stem.removeprefix("round_")) for file in self.folder.glob("round_*.state"))

    def file(self, round_number: int) -> Path:
        """Return where the state after a round lies."""
        return self.folder / f"round_{round_number:05d}.state"

    def newest(self, at_most: int | None = None) -> int | None:
        """Return the last round whose state is there, not later than `at_most`."""
        return max((r for r in self.rounds() if at_most is None or r <= at_most), default=None)

    def load(self, round_number: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state after a round.

        Raises:
            StateFileError: damaged.
        """
        return load_state(self.file(round_number))

    def load_newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the last state, None if there is none; also while a run goes on and removes old ones.

        Raises:
            StateFileError: damaged.
        """
        while (newest := self.newest()) is not None:
            try:
                return self.load(newest)
            except StateFileError:
                if self.file(newest).is_file():
                    raise
        return None

    def save(self, round_number: int, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Save the state after a round; older ones than the last but one are removed.

        Raises:
            StateFileError: the disk is full, or the folder cannot be written.
        """
        save_state(self.file(round_number), tensors, header)
        for old in self.rounds()[:-KEPT_STATES]:
            self.file(old).unlink()


class RunFolder:
    """One run on disk.

    Args:
        path: the folder; made when the run starts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.coordinator = StateFiles(path / "coordinator")

    def site(self, name: str) -> StateFiles:
        """Return the states of a site."""
        return StateFiles(self.path / "sites" / name)

    def log_file(self, name: str) -> Path:
        """Return where nnU-Net's console output of a site goes."""
        return self.path / "sites" / name / "nnunet.log"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the lock vanishes with the process, however that ends.

        Raises:
            RunError: another process works here.
        """
        self._make()
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise RunError(
                f"Another process runs this federation in {self.path}. Wait for it (`fedmepd status {self.path}` shows "
                "how far it is), or give this run another folder with --run."
            ) from None
        with lock:
            for leftover in self.path.rglob("*.partial"):  # of a process that was killed while it saved
                leftover.unlink()
            yield

    def open(self, identity: Mapping[str, Any], differences: Callable[[dict, dict], list[str]]) -> str:
        """Return the run's id, new for a new run.

        Args:
            identity: what the run's result depends on.
            differences: names what changed between two identities.

        Raises:
            RunError: the folder holds a run of something else.
            StateFileError: what it was started with is damaged.
        """
        file = self.path / "run.json"
        if not file.is_file():
            known = {"run_id": uuid.uuid4().hex, "started": time.time(), "identity": dict(identity)}
            write_atomically(file, json.dumps(known, indent=2).encode())
            return str(known["run_id"])
        found = self.started_with()
        if changed := differences(found["identity"], json.loads(json.dumps(dict(identity)))):
            raise RunError(
                f"{self.path} holds a run that was started with other settings:\n  "
                + "\n  ".join(changed)
                + "\nGoing on would mix two federations. Undo the change, or start a new run with --run FOLDER."
            )
        return str(found["run_id"])

    def started_with(self) -> dict[str, Any]:
        """Return the run's id and identity.

        Raises:
            StateFileError: the file is missing or damaged.
        """
        file = self.path / "run.json"
        known = read_json(file)
        if not isinstance(known, dict) or not {"run_id", "identity"} <= set(known):
            raise StateFileError(f"{file} is damaged: it does not say which run this is. {_RESTORE}")
        return known

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Replace the status."""
        write_atomically(self.path / "status.json", json.dumps(dict(status), indent=2).encode())

    def status(self) -> dict[str, Any]:
        """Return the status.

        Raises:
            RunError: no run here.
        """
        file = self.path / "status.json"
        if not file.is_file():
            raise RunError(
                f"{self.path} holds no federated run: expected the file status.json, which `fedmepd run` makes."
            )
        return read_json(file)

    def write_layers(self, layers: Sequence[DecoderLayer]) -> None:
        """Write down what the journal's lists are about."""
        write_atomically(self.path / "layers.json", json.dumps([asdict(layer) for layer in layers]).encode())

    def layers(self) -> list[DecoderLayer]:
        """Return the decoder's layers; none where the run was started by a version that did not write them down."""
        file = self.path / "layers.json"
        layers = read_json(file) if file.is_file() else []
        return [DecoderLayer(**{**layer, "groups": tuple(layer["groups"])}) for layer in layers]

    def journal(self) -> list[dict[str, Any]]:
        """Return the journal's lines; a last line cut off by a crash is left out."""
        file = self.path / "rounds.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def write_journal(self, lines: list[dict[str, Any]]) -> None:
        """Replace the journal."""
        write_atomically(self.path / "rounds.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())

    def append_journal(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        with (self.path / "rounds.jsonl").open("a") as file:
            file.write(json.dumps(dict(line)) + "\n")

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"The run's folder {self.path} cannot be made: {error.strerror}.") from None


def read_json(file: Path) -> Any:
    """Return a JSON file of a run.

    Raises:
        StateFileError: missing, or not JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise StateFileError(f"{file} cannot be read: {error.strerror}. {_RESTORE}") from None
    except ValueError:
        raise StateFileError(f"{file} is damaged: it is no JSON. {_RESTORE}") from None


def flat_differences(old: Any, new: Any, place: str = "") -> list[str]:
    """Return what changed between two nested JSON values, `place: old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line
            for key in keys
            for line in flat_differences(old.get(key), new.get(key), f"{place}.{key}" if place else str(key))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i in range(len(old)) for line in flat_differences(old[i], new[i], f"{place}[{i}]")]
    return [] if old == new else [f"{place}: {old!r} -> {new!r}"]
