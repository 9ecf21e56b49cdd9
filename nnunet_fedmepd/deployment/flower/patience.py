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
    """Return what a call returns, which is made again for a minute where the superlink does not or cannot answer it.

    Raises:
        httpx.HTTPError: it still does not, or the call is wrong.
    """
    for pause in _PAUSES:
        try:
            return call()
        except httpx.HTTPError as error:
            if not may_pass(error):
                raise
            LOG.info("the superlink: %s; asked again in %.0f s", str(error).partition("\n")[0], pause)
            time.sleep(pause)
    return call()


def may_pass(error: httpx.HTTPError) -> bool:
    """Return whether the superlink did not answer, or could not for reasons of its own."""
    return not isinstance(error, httpx.HTTPStatusError) or error.response.is_server_error
