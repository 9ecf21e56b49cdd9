"""Planning together over a channel: the phases of `runtime.planning`, with the sites at the other end."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.deployment.calls import Calls
from nnunet_fedmepd.deployment.requests import Adopt, Adopted, Joined, ReportFirst, ReportSecond
from nnunet_fedmepd.maths.fingerprints import planning_request, pool
from nnunet_fedmepd.maths.planning_reports import FirstReport, SecondReport
from nnunet_fedmepd.runtime.planning import plans_from_reports

LOG = logging.getLogger(__name__)


def plan_over(calls: Calls, federation: Federation, joined: Mapping[str, Joined]) -> None:
    """Let all sites plan together and preprocess their cases, where that is not done yet.

    Args:
        calls: to the sites.
        federation: the federation.
        joined: every site.

    Raises:
        ConfigurationError: no such planner.
        DatasetError: reports do not belong together.
        SitesMissingError: a site did not answer, or failed.
    """
    first = calls.all(dict.fromkeys(joined, ReportFirst), FirstReport, "Planning, phase 1")
    announced = planning_request(pool(list(first.values())))
    second = calls.all(dict.fromkeys(joined, lambda: ReportSecond(announced)), SecondReport, "Planning, phase 2")
    terms = next(iter(joined.values())).terms
    plans = plans_from_reports(first, second, terms, federation.vocabulary, federation.planning)
    for site, adopted in calls.all(dict.fromkeys(joined, lambda: Adopt(plans)), Adopted, "Preprocessing").items():
        plans_are = "new plans" if adopted.plans_written else "plans unchanged"
        LOG.info("site %s: %s, %d cases preprocessed", site, plans_are, adopted.n_preprocessed)
