"""Makes nnU-Net's commands find this package's classes by name.

nnU-Net looks up trainers, planners, preprocessors, normalisations and fingerprint extractors with one function,
`nnunetv2.utilities.find_class_by_name.recursive_find_python_class`, which walks nnU-Net's own folders. Here that
function is wrapped: the names in `CLASSES` resolve to our classes, imported at the moment of the look-up and hence the
same object at every look-up; all other names go through unchanged.

In an environment where the package is installed, the start-up hook calls `wrap_lookup` when nnU-Net is imported, and
nobody has to call anything. A program that runs where start-up files are not processed calls `register()`.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_PLUGIN = "nnunet_fedmepd.nnunet_plugin"

CLASSES = {
    "FedMEPDTrainer": f"{_PLUGIN}.trainer",
    "FedMEPDPlanner": f"{_PLUGIN}.planner",
    "FedMEPDTinyPlanner": f"{_PLUGIN}.planner",
    "FedMEPDPreprocessor": f"{_PLUGIN}.preprocessor",
    "FedMEPDFingerprintExtractor": f"{_PLUGIN}.fingerprint",
    "TissueZScoreNormalization": f"{_PLUGIN}.normalization",
}
"""Class name as given on nnU-Net's command line or in plans.json -> the module that holds it."""

LOOKUP_MODULE = "nnunetv2.utilities.find_class_by_name"
_LOOKUP = "recursive_find_python_class"
_MARK = "_finds_fedmepd_classes"

Lookup = Callable[..., Any]


def register() -> None:
    """Make nnU-Net find our classes in this process; harmless when it does already.

    Works before and after nnU-Net's modules were imported, and regardless of FEDMEPD_NO_HOOK. A worker started by
    `multiprocessing` with the spawn method is a process of its own and needs its own call, at the top level of the
    program's main module.
    """
    wrap_lookup(importlib.import_module(LOOKUP_MODULE))


def is_registered() -> bool:
    """Whether nnU-Net finds our classes in this process."""
    return _is_wrapped(getattr(importlib.import_module(LOOKUP_MODULE), _LOOKUP))


def wrap_lookup(module: ModuleType) -> None:
    """Wrap the look-up function of nnU-Net's module `find_class_by_name`, and every copy of it imported elsewhere."""
    original = getattr(module, _LOOKUP)
    if not _is_wrapped(original):
        _replace_everywhere(original, _with_our_classes(original))


def _is_wrapped(lookup: Lookup) -> bool:
    return getattr(lookup, _MARK, False)


def _with_our_classes(original: Lookup) -> Lookup:
    @functools.wraps(original)
    def find_class(folder: str, class_name: str, *args: Any, **kwargs: Any) -> Any:
        if class_name in CLASSES:
            return getattr(importlib.import_module(CLASSES[class_name]), class_name)
        return original(folder, class_name, *args, **kwargs)

    setattr(find_class, _MARK, True)
    return find_class


def _replace_everywhere(original: Lookup, replacement: Lookup) -> None:
    """Replace the function in all loaded modules: `from ... import` has left a copy in each importer."""
    for module in list(sys.modules.values()):
        # the module's dict and not getattr, which may trigger a lazy module's imports
        if getattr(module, "__dict__", {}).get(_LOOKUP) is original:
            setattr(module, _LOOKUP, replacement)
