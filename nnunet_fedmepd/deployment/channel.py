"""The border to an engine: bytes to sites, bytes back. Everything above it is the same, whatever the engine.

One adapter an engine, in a folder of its own, offers a `Channel` to the coordinator, and at every site hands requests
to the site's process by `spool`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class NoAnswer:
    """A site did not answer, or not with what may be loaded.

    Attributes:
        reason: as far as the engine knows it.
        refused: whether there was an answer.
    """

    reason: str
    refused: bool = False


class Channel(Protocol):
    """Exchanges bytes with sites, by their names."""

    def exchange(
        self, requests: Mapping[str, Callable[[], bytes]], limit_bytes: int, seconds: float
    ) -> Iterator[tuple[str, bytes | NoAnswer]]:
        """Yield each site's answer as it comes; every site that is asked is in the result, once.

        Args:
            requests: site -> makes its request, when it is sent.
            limit_bytes: that an answer may have; a longer one is not loaded into memory.
            seconds: that a site is waited for.
        """
        ...
