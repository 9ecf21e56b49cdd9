"""The coordinator's calls: typed requests to sites over a channel; answers are checked before use."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from nnunet_fedmepd.deployment.channel import Channel, NoAnswer
from nnunet_fedmepd.deployment.requests import (
    HEADER_LIMIT,
    ExchangeError,
    Request,
    SiteFailedError,
    decode_reply,
    encode_request,
)
from nnunet_fedmepd.deployment.spool import key_of
from nnunet_fedmepd.runtime.local import RETRY_SECONDS, SitesMissingError, named
from nnunet_fedmepd.runtime.workers import Missed

LOG = logging.getLogger(__name__)
_Reply = TypeVar("_Reply")
_Make = Callable[[], Request]


class Calls:
    """Asks sites.

    Args:
        channel: to them.
        federation: digest of the federation file.
        turn_limit_seconds: that a site has for an answer.
        wait_limit_seconds: that sites which do not answer are waited for, where all are needed.
    """

    def __init__(self, channel: Channel, federation: str, turn_limit_seconds: float, wait_limit_seconds: float) -> None:
        self.channel, self.federation = channel, federation
        self.turn_limit_seconds, self.wait_limit_seconds = turn_limit_seconds, wait_limit_seconds

    def each(
        self, requests: Mapping[str, _Make], kind: type[_Reply], limit_bytes: int = HEADER_LIMIT
    ) -> Iterator[tuple[str, _Reply | Missed]]:
        """Yield each site's reply as it comes, or why there is none that can be used.

        Args:
            requests: site -> makes its request.
            kind: of reply.
            limit_bytes: that a reply may have.
        """
        keys: dict[str, str] = {}

        def encoded(site: str, make: _Make) -> bytes:
            data = encode_request(make(), self.federation)
            keys[site] = key_of(data)
            return data

        made = {site: (lambda site=site, make=make: encoded(site, make)) for site, make in requests.items()}
        for site, answer in self.channel.exchange(made, limit_bytes, self.turn_limit_seconds):
            if isinstance(answer, NoAnswer):
                yield site, self._missed(site, answer.reason, answer.refused)
                continue
            try:
                reply = decode_reply(answer, self.federation, keys[site], kind)
            except SiteFailedError as error:
                yield site, self._missed(site, str(error), False)
            except ExchangeError as error:
                yield site, self._missed(site, str(error), True)
            else:
                yield site, reply

    @staticmethod
    def _missed(site: str, reason: str, refused: bool) -> Missed:
        return Missed(f"The answer of site {site!r} is refused: {reason}" if refused else reason, refused)

    def all(self, requests: Mapping[str, _Make], kind: type[_Reply], what: str) -> dict[str, _Reply]:
        """Return the replies of all sites, in the order asked; those that cannot be reached or fail are waited for.

        Args:
            requests: site -> makes its request.
            kind: of reply.
            what: is waiting, for the log.

        Raises:
            SitesMissingError: the limit has passed.
        """
        replies: dict[str, _Reply] = {}
        until, told = time.monotonic() + self.wait_limit_seconds, ""
        while True:
            missed: dict[str, Missed] = {}
            left = {site: make for site, make in requests.items() if site not in replies}
            for site, reply in self.each(left, kind):
                if isinstance(reply, Missed):
                    missed[site] = reply
                else:
                    replies[site] = reply
            if not missed:
                return {site: replies[site] for site in requests}
            if time.monotonic() > until:
                raise SitesMissingError(
                    f"{what} needs all sites. Missing: {named(missed)}. Start the coordinator again when they are back."
                )
            if named(missed) != told:
                told = named(missed)
                LOG.warning("%s waits for %s", what, told)
            time.sleep(RETRY_SECONDS)
