"""Networks of many sites, compiled in one process."""

import subprocess
import sys
from pathlib import Path


def test_the_networks_of_several_sites_are_all_compiled():
    # In a process of its own: the shape checks of the tests are no part of what users compile.
    script = Path(__file__).parent / "compile_every_site.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "recompile_limit" not in done.stderr
    assert done.stdout.split() == ["3"]
