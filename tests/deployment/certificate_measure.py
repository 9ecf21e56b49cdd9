"""The measure against certificates that were signed once and are not to be used any more."""

from __future__ import annotations

from tests.deployment.loopback import IN_CONFIGURATION

CURRENT_CERTIFICATE = "one certificate a site, by its number"

IN_CONFIGURATION[CURRENT_CERTIFICATE] = ("if ($is_current_certificate = 0) { return 403; }", "")
