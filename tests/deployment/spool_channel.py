"""A channel without an engine: requests are put straight into the spools of sites on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from nnunet_fedmepd.deployment.channel import NoAnswer
from nnunet_fedmepd.deployment.spool import Spool, SpoolError, key_of


class SpoolChannel:
    """Hands requests to sites' processes on this machine.

    Args:
        spools: site -> its spool folder.
    """

    def __init__(self, spools: Mapping[str, Path]) -> None:
        self.spools = {site: Spool(folder) for site, folder in spools.items()}

    def exchange(
        self, requests: Mapping[str, Callable[[], bytes]], limit_bytes: int, seconds: float
    ) -> Iterator[tuple[str, bytes | NoAnswer]]:
        with ThreadPoolExecutor(len(requests)) as pool:
            futures = {pool.submit(self._ask, site, make()): site for site, make in requests.items()}
            for future in as_completed(futures):
                yield futures[future], future.result()

    def _ask(self, site: str, request: bytes) -> bytes | NoAnswer:
        try:
            return self.spools[site].ask(key_of(request), request)
        except SpoolError as error:
            return NoAnswer(str(error))
