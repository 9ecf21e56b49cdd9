"""Flower's starter of apps, which asks the superlink again where that could not answer; Flower's own would end.

    python -m nnunet_fedmepd.deployment.flower.app_starter ARGUMENTS OF flower-superexec

With it the apps would end that it started, and nobody would start others.
"""

from __future__ import annotations

import httpx
from flwr.supercore.cli import flower_superexec
from flwr.supercore.retry import http_retry


def main() -> None:
    """Start apps until told to end."""
    codes = http_retry._RETRYABLE_STATUS_CODES | {httpx.codes.INTERNAL_SERVER_ERROR}  # its database may be busy
    vars(http_retry).update({"_RETRYABLE_STATUS_CODES": codes})
    flower_superexec()


if __name__ == "__main__":
    main()
