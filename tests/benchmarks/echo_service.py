"""Stands for a site's process in measurements: answers every request at once, with as many random bytes as it has.

python -m tests.benchmarks.echo_service SPOOL
"""

import os
import sys
import time
from pathlib import Path

from nnunet_fedmepd.deployment.spool import Spool

if __name__ == "__main__":
    spool = Spool(Path(sys.argv[1]))
    with spool.serving():
        while True:
            if (waiting := spool.waiting()) is None:
                time.sleep(0.05)
                continue
            key, request = waiting
            spool.answer(key, os.urandom(len(request)), keep=False)
