"""Kits of a small federation without keys and certificates, and the processes of its sites."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.deployment.kit import CoordinatorKit, SiteKit, load_coordinator_kit, load_site_kit

SERVICE = "nnunet_fedmepd.deployment.site_service"


def write_toml(file: Path, federation: Federation) -> None:
    """Write a federation file."""
    content = federation.model_dump(
        mode="json", exclude_none=True, exclude={"method": {"personalization": {"__all__"}}}
    )
    sites = content.pop("site")
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    lines = [f"{name} = {_value(value)}" for name, value in content.items() if name not in tables]
    tables["method"]["personalization"] = federation.method.personalization
    for name, table in tables.items():
        inline = {key: value for key, value in table.items() if value != {}}
        lines += [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in inline.items())]
    for site in sites:
        lines += ["[[site]]", *(f"{key} = {_value(value)}" for key, value in site.items())]
    file.write_text("\n".join(lines) + "\n")


def coordinator_kit(folder: Path, federation: Federation, **values: object) -> CoordinatorKit:
    """Write the coordinator's kit."""
    _write(folder, {"role": "coordinator", "host": "localhost", "port": 1, "superlink_port": 2, **values}, federation)
    return load_coordinator_kit(folder)


def site_kits(folder: Path, federation: Federation, paths: Mapping[str, Path]) -> dict[str, SiteKit]:
    """Write a kit for every site; `paths` are nnU-Net's folders, by the names of their variables."""
    kits = {}
    for i, site in enumerate(federation.site):
        ports = {"coordinator_port": 1, "sidecar_port": 2 + i, "supernode_port": 100 + i}
        _write(
            folder / site.name,
            {"role": "site", "site": site.name, "coordinator_host": "localhost", **ports},
            federation,
        )
        own = {variable.lower(): str(path) for variable, path in paths.items()}
        text = "".join(f"{key} = {_value(value)}\n" for key, value in {**own, "device": "cpu"}.items())
        (folder / site.name / "site.toml").write_text(text)
        kits[site.name] = load_site_kit(folder / site.name)
    return kits


@contextmanager
def processes(kits: Mapping[str, SiteKit]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run the processes of sites, and kill them in the end."""
    running = {site: start_service(kit) for site, kit in kits.items()}
    try:
        yield running
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def start_service(kit: SiteKit, module: str = SERVICE) -> subprocess.Popen[bytes]:
    """Start the long-lived process of a site."""
    kit.logs.mkdir(exist_ok=True)
    with (kit.logs / "service.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, str(kit.folder)], stdout=log, stderr=log, env={**os.environ, **kit.variables}
        )


def _write(folder: Path, values: Mapping[str, object], federation: Federation) -> None:
    folder.mkdir(parents=True)
    (folder / "kit.toml").write_text("".join(f"{key} = {_value(value)}\n" for key, value in values.items()))
    write_toml(folder / "federation.toml", federation)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(own)}" for key, own in value.items()) + "}"
    return json.dumps(value)
