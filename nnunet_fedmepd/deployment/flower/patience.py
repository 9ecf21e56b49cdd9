"""Calls of a superlink, whose database may be busy with a large payload for seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import httpx

LOG = logging.getLogger(__name__)
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_Result = TypeVar("_Result")


def patiently(call: Callable[[], _Result]) -> _Result:
    """Return what a call returns, which is made again for a minute where the superlink cannot answer it.

    Raises:
        httpx.HTTPStatusError: it still cannot, or the call is wrong.
    """
    for pause in _PAUSES:
        try:
            return call()
        except httpx.HTTPStatusError as error:
            if not error.response.is_server_error:
                raise
            LOG.info("the superlink answers %d; asked again in %.0f s", error.response.status_code, pause)
            time.sleep(pause)
    return call()
