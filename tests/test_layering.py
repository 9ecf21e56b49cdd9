"""Imports point downward only: the rule, held by reading the source of every module."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "nnunet_fedmepd"
CONVERSION = "dataset_conversion"

# Part of the project -> the other parts it may import. A part may always import itself and the bare package.
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "modalities": {"errors"},
    "config": {"errors", "modalities", "maths"},
    "maths": {"errors"},
    "networks": {"errors", "modalities", "maths"},
    "nnunet_plugin": {"errors", "modalities", "config", "maths", "networks"},
    "federation": {"errors", "config", "maths"},
    "pictures": {"modalities"},
    "demo_data": {"errors", "modalities", "pictures"},
    "evaluation": {"errors", "modalities", "config", "maths", "networks", "federation", "pictures"},
    CONVERSION: {"errors", "modalities"},
    "runtime": {
        *("errors", "modalities", "config", "maths", "networks", "nnunet_plugin", "federation", "evaluation"),
    },
    "deployment": {
        *("errors", "modalities", "config", "maths", "networks", "nnunet_plugin", "federation", "runtime"),
    },
    "commands": {
        *("errors", "modalities", "config", "nnunet_plugin", "federation", "runtime", "deployment", "demo_data"),
        *("evaluation", CONVERSION),
    },
    "cli": {"errors", "commands"},
    "launch": {"cli", "nnunet_plugin"},
    "__main__": {"launch"},
}

# Distribution that only some parts may import -> those parts.
RESERVED = {
    "nnunetv2": {"nnunet_plugin", "runtime", "commands.demo"},
    "flwr": {"deployment.flower"},
}

# Part -> all that it may import from outside the project and the standard library.
ONLY: dict[str, set[str]] = {
    "errors": set(),
    "modalities": {"numpy"},
    "maths": {"torch", "numpy", "sklearn", "einops", "jaxtyping"},
}


def imported_modules(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Yield the absolute dotted name of everything that a module's source imports, wherever it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            levels_up = node.level - is_package
            parents = module.split(".")[: -levels_up or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part_of(name: str) -> str:
    """Return a dotted name without the package in front: its layer comes first."""
    return name.removeprefix(f"{PACKAGE}.")


def top(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def is_within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Return every import of a module that the tables above forbid."""
    return [
        f"{module} imports {name}: {problem}"
        for name in imported_modules(source, module, is_package)
        if (problem := forbidden(part_of(module), name))
    ]


def forbidden(importer: str, name: str) -> str | None:
    """Return why a part may not import a name, or None if it may."""
    layer, distribution = top(importer), top(name)
    if is_within(name, PACKAGE) or is_within(name, CONVERSION):
        target = top(part_of(name))
        allowed = LAYERS[layer] | {layer}
        return None if target not in LAYERS or target in allowed else f"{layer} is not above {target}"
    if distribution in RESERVED and not any(is_within(importer, part) for part in RESERVED[distribution]):
        return f"only {sorted(RESERVED[distribution])} may import {distribution}"
    if layer in ONLY and distribution not in ONLY[layer] | set(sys.stdlib_module_names):
        return f"{layer} imports only {sorted(ONLY[layer])}"
    return None


def source_files() -> list[Path]:
    return [path for folder in (PACKAGE, CONVERSION) for path in sorted((ROOT / folder).rglob("*.py"))]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_module_imports_only_what_lies_below_it(path: Path) -> None:
    name = module_name(path)
    if name == PACKAGE:
        assert not [i for i in imported_modules(path.read_text("utf-8"), name, True) if is_within(i, PACKAGE)]
    else:
        assert violations(path.read_text("utf-8"), name, path.name == "__init__.py") == []


def test_every_part_of_the_package_has_a_place_in_the_layers() -> None:
    parts = {top(part_of(module_name(path))) for path in source_files()} - {PACKAGE}
    assert parts <= set(LAYERS)


def test_layers_form_no_circle() -> None:
    placed: set[str] = set()
    while remaining := {layer for layer in LAYERS if layer not in placed}:
        free = {layer for layer in remaining if LAYERS[layer] <= placed}
        assert free, f"these layers import each other: {remaining}"
        placed |= free


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("nnunet_fedmepd.maths.anchors", "from nnunet_fedmepd.networks.fusion import FusionBlock"),
        ("nnunet_fedmepd.maths.anchors", "from ..networks import fusion"),
        ("nnunet_fedmepd.maths.anchors", "import scipy.ndimage"),
        ("nnunet_fedmepd.maths.anchors", "from .. import modalities"),
        ("nnunet_fedmepd.networks.fusion", "def f():\n    import nnunetv2.paths"),
        ("nnunet_fedmepd.federation.site", "import nnunetv2"),
        ("nnunet_fedmepd.federation.site", "import flwr.client"),
        ("nnunet_fedmepd.runtime.local", "import flwr"),
        ("nnunet_fedmepd.deployment.calls", "import flwr"),
        ("nnunet_fedmepd.runtime.local", "from nnunet_fedmepd.deployment.channel import Channel"),
        ("nnunet_fedmepd.commands.doctor", "import nnunetv2"),
        ("nnunet_fedmepd.nnunet_plugin.trainer", "from nnunet_fedmepd.commands import demo"),
        ("dataset_conversion.brats", "from nnunet_fedmepd.nnunet_plugin.planner import FedMEPDPlanner"),
    ],
)
def test_an_upward_or_reserved_import_is_noticed(module: str, line: str) -> None:
    assert len(violations(line, module)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("nnunet_fedmepd.maths.anchors", "from .parameters import partition"),
        ("nnunet_fedmepd.maths.anchors", "from sklearn.cluster import KMeans"),
        ("nnunet_fedmepd.nnunet_plugin.trainer", "from nnunetv2.paths import nnUNet_raw"),
        ("nnunet_fedmepd.deployment.flower.server", "import flwr"),
        ("nnunet_fedmepd.commands.doctor", "from nnunet_fedmepd import __version__"),
        ("dataset_conversion.brats", "from nnunet_fedmepd.errors import DatasetError"),
    ],
)
def test_a_downward_import_passes(module: str, line: str) -> None:
    assert violations(line, module) == []
