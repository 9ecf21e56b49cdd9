"""Who trains where, when several processes train."""

from __future__ import annotations

from nnunet_fedmepd.config.loading import load_federation
from nnunet_fedmepd.runtime.workers import homes


def test_sites_are_shared_out_by_their_modalities_and_leads_by_themselves():
    home = homes(load_federation("demo"), 2)
    assert home["TCIA03"] == home["CBICA"] != home["TCIA01"] == home["TCIA02"]
    assert home["2013"] == 0


def test_a_lead_that_trains_like_everybody_else_is_shared_out_with_everybody_else():
    home = homes(load_federation("demo").as_variant("local"), 2)
    assert home["2013"] != home["TCIA03"]
    assert home["TCIA01"] != home["TCIA02"]
