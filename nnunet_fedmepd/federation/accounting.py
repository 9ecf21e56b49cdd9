"""What protected updates spend: the epsilon of all of a site's updates together, at the delta of the federation file.

Between any two data sets, one update is a Gaussian mechanism of sensitivity 2 C with noise `noise_multiplier * C`, and
n of them, each after having seen the ones before, tell as much as one with 1 / sqrt(n) of the noise (Dong, Roth, Su,
JRSS B 2022, corollary 3.3). That epsilon is exact (Balle, Wang, ICML 2018). Papers that compare a site's data with none
at all have half the sensitivity: they would name this noise twice as large.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from nnunet_fedmepd.config.federation import PrivacyTable
from nnunet_fedmepd.errors import FedMEPDError

_SENSITIVITY = 2.0  # in units of the clipping norm


class AccountantMissingError(FedMEPDError):
    """The library that accounts is not installed."""


def spent_epsilon(privacy: PrivacyTable, n_updates: int) -> float:
    """Return the epsilon of a number of a site's updates; 0 of none.

    Raises:
        AccountantMissingError: the extra is not installed.
    """
    try:
        import dp_accounting
    except ImportError:
        raise AccountantMissingError(
            "epsilon is computed by dp-accounting, which is not installed: pip install 'nnunet-fedmepd[privacy]'"
        ) from None
    if n_updates == 0:
        return 0.0
    noise_over_sensitivity = privacy.noise_multiplier / _SENSITIVITY / sqrt(n_updates)
    with np.errstate(divide="ignore"):  # where the library's search passes over a delta of 0
        return float(dp_accounting.get_epsilon_gaussian(noise_over_sensitivity, privacy.delta))
