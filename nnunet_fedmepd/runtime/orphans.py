"""Processes that must not outlive the one that started them."""

from __future__ import annotations

import os
import threading
import time
from functools import cache

_SECONDS_BETWEEN_LOOKS = 0.5


def end_with_parent(parent: int | None = None) -> None:
    """End this process as soon as the one that started it is gone, even by kill -9, whatever this one waits for.

    Args:
        parent: its process number. None takes that of now, which is another's where the parent may be gone already.
    """
    threading.Thread(target=_end_with, args=(parent or os.getppid(),), daemon=True).start()


@cache
def end_forks_with_this_process() -> None:
    """Let all that is forked here from now on, such as nnU-Net's data workers, end as soon as this process is gone."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=end_with_parent)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
