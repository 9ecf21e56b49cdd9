"""Sites over a channel take the turns of a run: to `runtime.local.LocalRun` they are workers like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from nnunet_fedmepd.deployment.calls import Calls
from nnunet_fedmepd.deployment.requests import HEADER_LIMIT, ModelWritten, TakeTurn, TurnTaken, WriteModel
from nnunet_fedmepd.federation.coordinator import limit_bytes
from nnunet_fedmepd.federation.messages import Anchors, HandOver
from nnunet_fedmepd.federation.roster import Model
from nnunet_fedmepd.federation.wire import encode
from nnunet_fedmepd.runtime.site_worker import TurnResult
from nnunet_fedmepd.runtime.workers import Advance, Missed


class RemoteSites:
    """Takes turns at sites, all at the same time.

    Args:
        calls: to the sites.
        run_id: of the run.
        plans: site -> digest of the plans that it joined with.
        model: bounds what sites may answer.
    """

    def __init__(self, calls: Calls, run_id: str, plans: Mapping[str, str], model: Model) -> None:
        self.calls, self.run_id, self.plans = calls, run_id, plans
        self._limit_bytes = limit_bytes(model) + HEADER_LIMIT

    def take_turns(
        self, round_number: int, hand_overs: Mapping[str, Callable[[], HandOver | None]], advance: Advance
    ) -> Iterator[tuple[str, TurnResult | Missed]]:
        nothing_exchanged: set[str] = set()

        def request(site: str, make: Callable[[], HandOver | None]) -> TakeTurn:
            hand_over = make()
            if hand_over is None:
                nothing_exchanged.add(site)
            body = b"" if hand_over is None else encode(hand_over)
            return TakeTurn(self.run_id, round_number, self.plans[site], body)

        requests = {site: (lambda site=site, make=make: request(site, make)) for site, make in hand_overs.items()}
        for site, reply in self.calls.each(requests, TurnTaken, self._limit_bytes):
            if isinstance(reply, Missed):
                yield site, reply
            else:
                message = None if site in nothing_exchanged else reply.body
                yield site, TurnResult(message, reply.report, reply.was_done)

    def finish(self, sites: Sequence[str], anchors: Anchors | None) -> Iterator[tuple[str, str | Missed]]:
        body = b"" if anchors is None else encode(HandOver(self.run_id, 0, {}, None, anchors, {}, 0, False))
        requests = {site: (lambda site=site: WriteModel(self.run_id, self.plans[site], body)) for site in sites}
        for site, reply in self.calls.each(requests, ModelWritten):
            yield site, reply if isinstance(reply, Missed) else "at the site"

    def close(self) -> None:
        pass
