"""Starts the processes of a kit, keeps them running, and ends them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from nnunet_fedmepd.errors import ConfigurationError, FedMEPDError
from nnunet_fedmepd.federation.storage import write_atomically

# A log that is longer when its process is first started is put aside, and the one put aside before is removed.
LONGEST_LOG = 20_000_000

_SECONDS_TO_END = 20.0


class ProcessError(FedMEPDError):
    """A process of a kit cannot be started, or does not stay."""


@dataclass(frozen=True)
class Program:
    """What a process runs.

    Attributes:
        name: also of its log, logs/NAME.log.
        command: absolute program and its arguments.
        variables: environment variables, on top of this process's.
        restart_seconds: between its end and its next start.
    """

    name: str
    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    restart_seconds: float = 2.0


@dataclass
class _Running:
    program: Program
    process: subprocess.Popen[bytes] | None
    start_at: float = 0.0


class Processes:
    """The processes of one kit, each with a log. Should this process be killed, they end as well (on Linux).

    Args:
        programs: in the order in which they are started; they are ended in the reverse order.
        folder: of the kit.
        report: told a line when a process ends unasked.
    """

    def __init__(self, programs: Sequence[Program], folder: Path, report: Callable[[str], None]) -> None:
        self.folder, self.report = folder, report
        self._all = [_Running(program, None) for program in programs]

    @contextmanager
    def running(self) -> Iterator[Processes]:
        """Start them, and end them in the end, whatever happens.

        Raises:
            ProcessError: one cannot be started.
        """
        try:
            for running in self._all:
                self._start(running)
            yield self
        finally:
            self._end_all()

    def start(self, program: Program) -> None:
        """Start one more, which is ended first.

        Raises:
            ProcessError: it cannot be started.
        """
        self._all.append(_Running(program, None))
        self._start(self._all[-1])

    def watch(self) -> None:
        """Start again what has ended, after its delay."""
        for running in self._all:
            if running.process is None:
                if time.monotonic() >= running.start_at:
                    self._start(running)
            elif (code := running.process.poll()) is not None:
                program = running.program
                running.process, running.start_at = None, time.monotonic() + program.restart_seconds
                self.report(
                    f"{program.name} ended with code {code}; it is started again in {program.restart_seconds:g} s. "
                    f"Its log: {self._log(program)}"
                )
                self._write_ids()

    def has_ended(self, name: str) -> int | None:
        """Return the exit code of a process that has ended and was not started again, else None."""
        (running,) = (running for running in self._all if running.program.name == name)
        return running.process.poll() if running.process is not None else None

    def _start(self, running: _Running) -> None:
        program, log = running.program, self._log(running.program)
        log.parent.mkdir(mode=0o700, exist_ok=True)
        if log.is_file() and log.stat().st_size > LONGEST_LOG:
            log.replace(log.with_suffix(".old.log"))
        try:
            with log.open("ab") as stream:
                running.process = subprocess.Popen(
                    [*_ending_with_parent(), *program.command],
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env={**os.environ, **program.variables},
                    start_new_session=True,  # Ctrl-C is for this process, which then ends the others in order
                )
        except OSError as error:
            raise ProcessError(f"{program.command[0]} cannot be started: {error.strerror}.") from None
        self._write_ids()

    def _end_all(self) -> None:
        processes = [running.process for running in reversed(self._all) if running.process is not None]
        for process in processes:
            _end(process)
        with contextlib.suppress(FileNotFoundError):
            self._id_file.unlink()

    def _write_ids(self) -> None:
        ids = {r.program.name: r.process.pid for r in self._all if r.process is not None}
        write_atomically(self._id_file, json.dumps(ids).encode())

    @property
    def _id_file(self) -> Path:
        return id_file(self.folder)

    def _log(self, program: Program) -> Path:
        return self.folder / "logs" / f"{program.name}.log"


def id_file(folder: Path) -> Path:
    """Return the JSON file of a kit with the ids of its running processes, by name."""
    return folder / "tmp" / "processes.json"


class Stopped(Exception):  # noqa: N818  it is no error
    """This process was asked to end."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Leave the block quietly on Ctrl-C, or when this process is asked to end, as systemd does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (Stopped, KeyboardInterrupt):
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def installed_program(name: str) -> str:
    """Return a program that was installed with this package.

    Raises:
        ConfigurationError: it is not there.
    """
    beside = Path(sys.executable).parent / name
    if not beside.is_file():
        raise ConfigurationError(f"{beside} is not there; install the extra: pip install 'nnunet-fedmepd[deployment]'.")
    return str(beside)


def nginx_program() -> str:
    """Return nginx, wherever the operating system keeps it.

    Raises:
        ConfigurationError: it is not installed.
    """
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
    if found is None:
        raise ConfigurationError(
            "nginx is not installed; it holds the certificates. On Debian and Ubuntu: apt-get install nginx-light"
        )
    return found


def _ending_with_parent() -> list[str]:
    """Return what to put before a command so that it ends when the process that starts it does."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv is not None else []


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, first by asking; what it started and left behind is killed."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
