"""Plans from the network: what the installed planner writes passes, any other name of something to call does not."""

from __future__ import annotations

from copy import deepcopy

import pytest

from nnunet_fedmepd.deployment.received_plans import check_received_plans
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.maths.fingerprints import planning_request, pool
from nnunet_fedmepd.runtime.planning import open_sites, plans_from_reports
from tests.runtime.small_federation import small_federation

NAME = "FedMEPDTinyPlans"


@pytest.fixture
def plans(datasets):
    federation = small_federation()
    sites = open_sites(federation, federation.vocabulary)
    first = {site.name: site.first_report() for site in sites}
    request = planning_request(pool(list(first.values())))
    second = {site.name: site.second_report(request) for site in sites}
    return plans_from_reports(first, second, sites[0].terms(), federation.vocabulary, federation.planning)


def test_what_the_installed_planner_writes_passes(plans):
    check_received_plans(plans, NAME)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("plans_name",), "../../somewhere"),
        (("configurations",), "none"),
        (("configurations", "3d_fullres", "data_identifier"), "../elsewhere"),
        (("configurations", "3d_fullres", "architecture", "network_class_name"), "subprocess.Popen"),
        (("configurations", "3d_fullres", "architecture", "arch_kwargs", "conv_op"), "os.system"),
        (("configurations", "3d_fullres", "architecture", "arch_kwargs", "nonlin"), "eval"),
        (("configurations", "3d_fullres", "architecture", "_kw_requires_import"), ["norm_op_kwargs"]),
        (("configurations", "3d_fullres", "architecture"), []),
    ],
    ids=lambda value: "/".join(value) if isinstance(value, tuple) else "",
)
def test_another_name_is_refused(plans, place, value):
    changed = deepcopy(plans)
    table = changed
    for key in place[:-1]:
        table = table[key]
    table[place[-1]] = value
    with pytest.raises(ConfigurationError, match="Plans that were received are refused"):
        check_received_plans(changed, NAME)
