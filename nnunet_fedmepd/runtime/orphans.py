"""A process that must not outlive the one that started it."""

from __future__ import annotations

import os
import threading
import time

_SECONDS_BETWEEN_LOOKS = 0.5


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, even by kill -9, whatever this one waits for."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
