"""A process that was started by one that is killed ends, though it waits and no signal comes through."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.processes import is_there

WAITS = """
import sys, threading
from nnunet_fedmepd.runtime.orphans import end_with_parent
end_with_parent()
print("waits", flush=True)
threading.Event().wait()
"""
PARENT = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode)"


def test_a_process_ends_with_the_one_that_started_it():
    with subprocess.Popen([sys.executable, "-c", PARENT, WAITS], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "waits\n"
        (child,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert is_there(int(child))
        parent.kill()
        parent.wait()
        until = time.monotonic() + 60
        while is_there(int(child)):
            assert time.monotonic() < until, "it waits on"
            time.sleep(0.1)
