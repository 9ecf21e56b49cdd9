"""Two places with a router between them, as network namespaces of Linux: the network can be cut, and slow."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence

import pytest

CENTRE, HOSPITAL = "centre", "hospital"
CENTRE_ADDRESS = "10.213.1.2"
# Place -> its own address, and the router's there.
_ADDRESSES = {CENTRE: (CENTRE_ADDRESS, "10.213.1.1"), HOSPITAL: ("10.213.2.2", "10.213.2.1")}
_QUEUE = "400ms"  # of a slow link, before it drops packets


class Network:
    """The only way between a centre and a hospital. Nothing of this machine's own network is touched.

    Raises:
        OSError: a program that makes it is not installed.
        subprocess.CalledProcessError: this system makes none.
    """

    def __init__(self) -> None:
        self._router = f"fedmepd-{os.getpid()}-router"
        self._places = {place: f"fedmepd-{os.getpid()}-{place}" for place in _ADDRESSES}
        try:
            self._make()
        except (OSError, subprocess.CalledProcessError):
            self.close()
            raise

    def close(self) -> None:
        """Remove it; what still runs in it has no network any more."""
        with contextlib.suppress(OSError):
            for namespace in (self._router, *self._places.values()):
                subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)

    def at(self, place: str) -> Sequence[str]:
        """Return what to put before a command so that it runs at a place."""
        return ["ip", "netns", "exec", self._places[place]]

    def cut(self) -> None:
        """From now on nothing passes, either way: packets vanish, nobody is told."""
        self._forward(False)

    def restore(self) -> None:
        """Let everything pass again."""
        self._forward(True)

    def slow_down(self, bits_per_second: int) -> None:
        """From now on that much passes, each way."""
        for place in self._places:
            limit = ("tbf", "rate", f"{bits_per_second}bit", "burst", "16kb", "latency", _QUEUE)
            _run("tc", "-n", self._router, "qdisc", "replace", "dev", place, "root", *limit)

    def speed_up(self) -> None:
        """Take the limit away."""
        for place in self._places:
            _run("tc", "-n", self._router, "qdisc", "delete", "dev", place, "root")

    def bytes_from(self, place: str) -> int:
        """Return how many bytes have come out of a place, whatever became of them."""
        return int(self._at_router("cat", f"/sys/class/net/{place}/statistics/rx_bytes"))

    def _make(self) -> None:
        for namespace in (self._router, *self._places.values()):
            _run("ip", "netns", "add", namespace)
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
        for place, namespace in self._places.items():
            own, routers = _ADDRESSES[place]
            peer = ("type", "veth", "peer", "name", place, "netns", self._router)
            _run("ip", "link", "add", "way", "netns", namespace, *peer)
            for where, device, address in ((namespace, "way", own), (self._router, place, routers)):
                _run("ip", "-n", where, "address", "add", f"{address}/24", "dev", device)
                _run("ip", "-n", where, "link", "set", device, "up")
            _run("ip", "-n", namespace, "route", "add", "default", "via", routers)
        self.restore()

    def _forward(self, forwards: bool) -> None:
        self._at_router("sysctl", "-q", "-w", f"net.ipv4.ip_forward={int(forwards)}")

    def _at_router(self, *command: str) -> str:
        return _run("ip", "netns", "exec", self._router, *command)


@contextlib.contextmanager
def a_network() -> Iterator[Network]:
    """Make a network; where this system makes none, the test is skipped, and says why."""
    try:
        made = Network()
        made.slow_down(1_000_000)
        made.speed_up()
    except OSError as error:
        pytest.skip(f"no `{error.filename}`: apt-get install iproute2 procps")
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip().splitlines() or ["refused"])[-1]
        pytest.skip(f"needs network namespaces of Linux, as root: `{' '.join(error.cmd)}`: {why}")
    with contextlib.closing(made):
        yield made


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
