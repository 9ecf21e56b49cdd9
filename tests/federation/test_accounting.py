"""What protected updates spend: against the closed form, and against two other accountants."""

from __future__ import annotations

import builtins
import math

import pytest
from scipy.stats import norm

from nnunet_fedmepd.config.federation import PrivacyTable
from nnunet_fedmepd.federation.accounting import AccountantMissingError, spent_epsilon


def table(noise_multiplier: float, delta: float = 1e-5) -> PrivacyTable:
    return PrivacyTable(clipping_norm=3.0, noise_multiplier=noise_multiplier, delta=delta)


@pytest.mark.parametrize(("noise", "n_updates"), [(1.0, 1), (8.0, 50), (2.0, 10), (40.0, 100)])
@pytest.mark.parametrize("delta", [1e-3, 1e-8])
def test_epsilon_is_that_of_the_closed_form(noise, n_updates, delta):
    epsilon = spent_epsilon(table(noise, delta), n_updates)
    # Two clipped changes are up to two clipping norms apart: mu = 2 sqrt(n) / noise.
    mu = 2 * math.sqrt(n_updates) / noise
    found = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    assert found == pytest.approx(delta, rel=1e-4)


def test_epsilon_agrees_with_two_other_accountants():
    import dp_accounting

    epsilon = spent_epsilon(table(20.0), 30)
    event = dp_accounting.GaussianDpEvent(10.0)
    tight = dp_accounting.pld.PLDAccountant(value_discretization_interval=1e-3).compose(event, 30).get_epsilon(1e-5)
    replaced = dp_accounting.NeighboringRelation.REPLACE_ONE
    loose = dp_accounting.rdp.RdpAccountant(neighboring_relation=replaced).compose(event, 30).get_epsilon(1e-5)
    assert tight == pytest.approx(epsilon, rel=5e-3)
    assert epsilon <= loose <= 1.2 * epsilon


def test_more_updates_spend_more_and_more_noise_less():
    assert spent_epsilon(table(1.0), 0) == 0
    assert spent_epsilon(table(1.0), 1) < spent_epsilon(table(1.0), 2)
    assert spent_epsilon(table(2.0), 4) == pytest.approx(spent_epsilon(table(1.0), 1))


@pytest.mark.filterwarnings("error")
def test_next_to_no_noise_spends_a_large_epsilon_and_warns_of_nothing():
    for noise in (1e-2, 1e-4, 1e-9):
        mu = 2 * math.sqrt(8) / noise
        assert mu**2 / 2 < spent_epsilon(table(noise), 8) < mu**2 / 2 + 10 * mu


def test_without_the_accountant_it_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def no_accountant(name, *args, **kwargs):
        if name == "dp_accounting":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_accountant)
    with pytest.raises(AccountantMissingError, match=r"pip install 'nnunet-fedmepd\[privacy\]'"):
        spent_epsilon(table(1.0), 1)
