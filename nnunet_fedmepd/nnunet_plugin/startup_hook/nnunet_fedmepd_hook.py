"""Start-up hook: nnU-Net's commands find this package's classes wherever both are installed.

Python's `site` calls `start()` in every interpreter of an environment that holds this package, spawned workers
included (through `nnunet_fedmepd.pth`, from Python 3.15 on through `nnunet_fedmepd.start`, see PEP 829). All it does
then is to put one finder on `sys.meta_path`. Only when nnU-Net's look-up module is imported does that finder do
anything: it lets the module load as always and hands it to `nnunet_fedmepd.nnunet_plugin.registration`.

The environment variable FEDMEPD_NO_HOOK, set to whatever value, switches it off. This file is installed beside the
package, not in it, and imports nothing that Python has not imported already: every interpreter pays for what is here.
"""

import os
import sys

TYPE_CHECKING = False  # importing `typing` would cost more than all the rest
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

LOOKUP_MODULE = "nnunetv2.utilities.find_class_by_name"


class LookupModuleFinder:
    """Finds nnU-Net's look-up module through the other finders and has it registered once it is loaded."""

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return the module's own spec with our loader around its loader; None for every other module."""
        if fullname != LOOKUP_MODULE:
            return None
        spec = self._find_with_others(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = RegisteringLoader(spec.loader)  # type: ignore[assignment]  # importlib needs no subclass
        return spec

    def _find_with_others(
        self, fullname: str, path: "Sequence[str] | None", target: "ModuleType | None"
    ) -> "ModuleSpec | None":
        for finder in sys.meta_path:
            if not isinstance(finder, LookupModuleFinder) and hasattr(finder, "find_spec"):
                spec = finder.find_spec(fullname, path, target)
                if spec is not None:
                    return spec
        return None


class RegisteringLoader:
    """Loads a module with its own loader, then registers our classes with it."""

    def __init__(self, loader: "Loader") -> None:
        self._loader = loader

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        """Leave creation to the module's own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        """Execute the module with its own loader, which it keeps, and register."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _register_with(module)


def _register_with(module: "ModuleType") -> None:
    """Register, or say why not: whatever is wrong with this package must not stop nnU-Net's own work."""
    try:
        from nnunet_fedmepd.nnunet_plugin.registration import wrap_lookup

        wrap_lookup(module)
    except Exception as problem:
        import warnings

        warnings.warn(f"nnU-Net will not find FedMEPD's classes: {type(problem).__name__}: {problem}", stacklevel=2)


def start() -> None:
    """Put the finder first on `sys.meta_path`, once, unless FEDMEPD_NO_HOOK says no."""
    if not os.environ.get("FEDMEPD_NO_HOOK") and not any(
        isinstance(finder, LookupModuleFinder) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, LookupModuleFinder())
