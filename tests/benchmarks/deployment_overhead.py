"""What the network costs a round, and how much memory payloads take on their way.

    python -m tests.benchmarks.deployment_overhead OUT [--megabytes 20 130 600] [--rounds 3] [--sites 3]

Starts a deployment on the loopback address as its commands do, with TLS, proxies and certificates. Only the two ends
are others: sites answer at once with as many random bytes as they got, and the coordinator sends random bytes. What a
round takes is therefore what it takes beyond training. Prints, for every size, the seconds of each round, and the most
memory that each process had beyond its memory before, as a multiple of the payload.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from flwr.serverapp import ServerApp

from nnunet_fedmepd.deployment.flower.grid_channel import GridChannel
from nnunet_fedmepd.deployment.init import Place, make_kits
from nnunet_fedmepd.deployment.kit import KIT_VARIABLE, load_coordinator_kit, load_site_kit
from nnunet_fedmepd.deployment.processes import Processes, Program, id_file
from nnunet_fedmepd.deployment.starting import bring_up_coordinator, site_programs
from nnunet_fedmepd.runtime.run_folder import RunFolder
from tests.deployment import made_kits
from tests.processes import finding_tests

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "overhead"
version = "1.0.0"
description = "Measures exchanges."
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "nnunet-fedmepd"
[tool.flwr.app.components]
serverapp = "measured.server:app"
clientapp = "measured.client:app"
"""
FILES = {
    "pyproject.toml": PROJECT,
    "measured/__init__.py": "",
    "measured/server.py": "from tests.benchmarks.deployment_overhead import app\n",
    "measured/client.py": "from flwr.clientapp import ClientApp\n\napp = ClientApp()\n",
}
SETTINGS = "FEDMEPD_OVERHEAD"
app = ServerApp()


@app.main()
def exchange(grid: Any, context: Any) -> None:
    """Exchange random bytes with all sites, and write down what it took."""
    kit = load_coordinator_kit(os.environ[KIT_VARIABLE])
    settings, run = json.loads(os.environ[SETTINGS]), RunFolder(kit.run_folder)
    channel, nodes = GridChannel(grid, json.loads(kit.node_file.read_bytes())), {}
    while len(nodes) < settings["sites"]:
        nodes = dict.fromkeys(grid.get_node_ids())
        time.sleep(1)
    kit.run_folder.mkdir(exist_ok=True)
    found = []
    for megabytes in settings["megabytes"]:
        n_bytes, folders, seconds = megabytes * 2**20, settings["folders"], []
        for name in channel.nodes:  # opens what is opened once
            list(channel.exchange({name: lambda: b"0"}, 2**20, 60))
        everything = {**_processes(folders), "coordinator": os.getpid()}
        worked = _processor_seconds(everything.values())
        with _memory(everything) as memory:
            for _ in range(settings["rounds"]):
                started = time.monotonic()
                requests = {name: partial(os.urandom, n_bytes) for name in channel.nodes}
                for site, answer in channel.exchange(requests, n_bytes, 1200):
                    assert isinstance(answer, bytes), (site, answer)
                    assert len(answer) == n_bytes
                    del answer
                seconds.append(time.monotonic() - started)
        times = {name: grown / n_bytes for name, grown in memory.items()}
        worked = (_processor_seconds(everything.values()) - worked) / settings["rounds"]
        found.append({"megabytes": megabytes, "seconds": seconds, "processor_seconds": worked, "memory": times})
        (kit.run_folder / "found.json").write_text(json.dumps(found))
    run.write_status({"state": "finished", "process": os.getpid()})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[20, 130, 600])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sites", type=int, default=3)
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    kits = _make_kits(args.out, args.sites)
    folders = [str(kits / "coordinator"), *(str(folder) for folder in sorted((kits / "sites").iterdir()))]
    settings = {"megabytes": args.megabytes, "rounds": args.rounds, "sites": args.sites, "folders": folders}
    os.environ[SETTINGS] = json.dumps(settings)
    os.environ.update(finding_tests())
    for name, text in FILES.items():
        file = args.out / "app" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with ExitStack() as stack:
        for folder in sorted((kits / "sites").iterdir()):
            kit = load_site_kit(folder)
            command = [sys.executable, "-m", "tests.benchmarks.echo_service", str(kit.spool_folder)]
            programs = site_programs(kit, Program("service", command))
            processes = stack.enter_context(Processes(programs, kit.folder, print).running())
            Thread(target=_watch, args=(processes,), daemon=True).start()
        bring_up_coordinator(load_coordinator_kit(kits / "coordinator"), args.out / "app", print)
    for line in json.loads((kits / "coordinator" / "run" / "found.json").read_text()):
        rounds = ", ".join(f"{seconds:.1f}" for seconds in line["seconds"])
        print(f"{line['megabytes']} MB: {statistics.median(line['seconds']):.1f} s a round (median of {rounds}),")
        print(f"  of which processors work {line['processor_seconds']:.1f} s, at the coordinator and one site")
        print("  memory / payload: " + ", ".join(f"{name} {times:.1f}" for name, times in line["memory"].items()))


def _make_kits(out: Path, n_sites: int) -> Path:
    sites = "".join(
        f'[[site]]\nname = "site{i}"\ndataset = {500 + i}\nlead = {str(i == 0).lower()}\n' for i in range(n_sites)
    )
    (out / "federation.toml").write_text(f'name = "overhead"\nmodalities = ["T1", "T2"]\nrounds = 1\n{sites}')
    ports = (made_kits.free_port() for _ in range(3))
    make_kits(out / "federation.toml", out / "kits", Place("127.0.0.1", *ports))
    for site in (out / "kits" / "sites").iterdir():
        made_kits.write_site_toml(site, out / "nnunet")
    return out / "kits"


def _watch(processes: Processes) -> None:
    while True:
        processes.watch()
        time.sleep(1)


def _processes(folders: list[str]) -> dict[str, int]:
    """Return the processes of the coordinator and of one site, by name."""
    return {name: pid for folder in folders[:2] for name, pid in json.loads(id_file(Path(folder)).read_bytes()).items()}


@contextmanager
def _memory(processes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Give, after the block, the bytes by which each process's peak was above its memory before."""
    before = {name: _value(pid, "VmRSS") for name, pid in processes.items()}
    for pid in processes.values():
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
    grown: dict[str, int] = {}
    yield grown
    grown.update({name: max(0, _value(pid, "VmHWM") - before[name]) for name, pid in processes.items()})


def _processor_seconds(processes: Iterable[int]) -> float:
    ticks = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13] for pid in processes]
    return sum(int(own) for pair in ticks for own in pair) / os.sysconf("SC_CLK_TCK")


def _value(pid: int, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    main()
