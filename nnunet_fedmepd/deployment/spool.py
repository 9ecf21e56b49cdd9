"""Files between an engine's short-lived or thin process and the site's own long-lived one, on one machine.

SPOOL/service.lock      held while the site's process lives
SPOOL/requests/KEY      a request that waits for its answer
SPOOL/replies/KEY       the last answers that are kept: a request that comes again is answered at once
SPOOL/replies/KEY.once  an answer that is not: a request that comes again is answered anew

Files appear whole or not at all. The folder is the site's alone. Nothing here imports torch: the engine's process stays
small.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.nnunet_plugin.atomic_files import replacing

KEPT_REPLIES = 2
PRIVATE_FOLDER = 0o700
_POLL_SECONDS = 0.1


class SpoolError(FedMEPDError):
    """The site's process is not there, or another one is."""


def key_of(request: bytes) -> str:
    """Return by what a request, and the saved answer to it, is known: federation, run, round and payload are in it."""
    return hashlib.sha256(request).hexdigest()


class Spool:
    """The folder between the two processes.

    Args:
        folder: made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._requests, self._replies = folder / "requests", folder / "replies"
        for path in (folder, self._requests, self._replies):
            path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            path.chmod(PRIVATE_FOLDER)
        self._lock_file = folder / "service.lock"

    def ask(self, key: str, request: bytes, stopped: Callable[[], bool] = lambda: False) -> bytes:
        """Return the answer of the site's process; a saved one, where it has answered this request before.

        Args:
            key: of the request.
            request: for the site's process.
            stopped: whether nobody waits for the answer any more.

        Raises:
            SpoolError: the site's process is not running.
            OSError: the disk is full.
        """
        self._withdraw(but=key)
        question = self._requests / key
        while (answer := self._answer(key)) is None:
            if not self.is_served() or stopped():
                self._withdraw()
                raise SpoolError("the site's own process is not running")
            if not question.is_file() and self._answer_file(key) is None:
                _write(question, request)
            time.sleep(_POLL_SECONDS)
        return answer

    def is_served(self) -> bool:
        """Return whether the site's process is running."""
        with self._lock_file.open("a") as lock:
            return not _acquire(lock)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer requests, until the block is left. What was asked before is withdrawn: whoever waits asks again.

        Raises:
            SpoolError: another process of this site is running.
        """
        with self._lock_file.open("a") as lock:
            until = time.monotonic() + 1.0  # whoever looks whether it is served holds the lock for an instant
            while not _acquire(lock):
                if time.monotonic() > until:
                    raise SpoolError(f"Another process of this site uses {self._lock_file.parent}; end it first.")
                time.sleep(_POLL_SECONDS)
            for file in self._waiting():
                file.unlink(missing_ok=True)
            yield

    def waiting(self) -> tuple[str, bytes] | None:
        """Return a request that waits, and its key; None without one."""
        for file in self._waiting():
            with contextlib.suppress(FileNotFoundError):  # withdrawn in this instant
                return file.name, file.read_bytes()
        return None

    def answer(self, key: str, reply: bytes, keep: bool) -> None:
        """Answer a request.

        Args:
            key: of the request.
            reply: to it.
            keep: whether it is the answer, too, if the request comes again; only the last ones are kept.

        Raises:
            OSError: the disk is full.
        """
        _write(self._replies / (key if keep else f"{key}.once"), reply)
        (self._requests / key).unlink(missing_ok=True)
        others = [file for file in self._replies.iterdir() if not file.suffix and file.name != key]
        for old in sorted(others, key=lambda file: file.stat().st_mtime)[: -(KEPT_REPLIES - 1)]:
            old.unlink()

    def _answer(self, key: str) -> bytes | None:
        file = self._answer_file(key)
        if file is None:
            return None
        data = file.read_bytes()
        if file.suffix:
            file.unlink()
        return data

    def _answer_file(self, key: str) -> Path | None:
        return next((f for f in (self._replies / key, self._replies / f"{key}.once") if f.is_file()), None)

    def _waiting(self) -> list[Path]:
        return [file for file in self._requests.iterdir() if not file.name.endswith(".partial")]

    def _withdraw(self, but: str = "") -> None:
        for file in self._requests.iterdir():
            if file.name != but:
                file.unlink(missing_ok=True)


def _write(file: Path, data: bytes) -> None:
    with replacing(file) as partial:
        partial.write_bytes(data)


def _acquire(lock: IO[str]) -> bool:
    """Lock a file for this process alone: children that a killed process left behind do not hold it."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
