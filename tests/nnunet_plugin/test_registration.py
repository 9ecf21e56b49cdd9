"""How nnU-Net's look-up finds our classes. Each case is an interpreter of its own, since registering is for good."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_fedmepd.nnunet_plugin.registration import CLASSES, LOOKUP_MODULE

ROOT = Path(__file__).resolve().parents[2]
HOOK = ROOT / "nnunet_fedmepd" / "nnunet_plugin" / "startup_hook"

LOOKUP = """
import importlib, sys
from nnunet_fedmepd.nnunet_plugin.registration import CLASSES, is_registered, register

def look_up(name, module="nnunetv2.utilities.find_class_by_name"):
    find = importlib.import_module(module).recursive_find_python_class
    import nnunetv2
    return find(nnunetv2.__path__[0] + "/imageio", name, "nnunetv2.imageio")
"""

IMPORTERS = [
    "nnunetv2.utilities.find_objects",
    "nnunetv2.utilities.get_network_from_plans",
    "nnunetv2.utilities.label_handling.label_handling",
    "nnunetv2.utilities.plans_handling.plans_handler",
    "nnunetv2.experiment_planning.plan_and_preprocess_api",
    "nnunetv2.preprocessing.preprocessors.default_preprocessor",
    "nnunetv2.preprocessing.resampling.utils",
    "nnunetv2.imageio.reader_writer_registry",
]


def python(code: str, **variables: str) -> str:
    """Run code in a new interpreter without the installed hook and return what it printed last."""
    environment = {**os.environ, "FEDMEPD_NO_HOOK": "1", **variables}
    command = [sys.executable, "-c", LOOKUP + code]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()[-1]


def python_with_hook(code: str, **variables: str) -> str:
    """The same with what the `.pth` file does at start-up done first."""
    start = f"import os, sys; sys.path.append({str(HOOK)!r}); os.environ.pop('FEDMEPD_NO_HOOK')\n"
    return python(f"{start}import nnunet_fedmepd_hook as hook; hook.start()\n{code}", **variables)


def test_without_registration_nnunet_does_not_know_our_names() -> None:
    assert python("print(is_registered(), look_up('FedMEPDTrainer'))") == "False None"


def test_registered_names_resolve_to_our_classes_which_survive_pickling() -> None:
    code = (
        "register()\nimport pickle\n"
        "for name, module in CLASSES.items():\n"
        "    first, second = look_up(name), look_up(name)\n"
        "    assert (first.__module__, first.__name__) == (module, name)\n"
        "    assert first is second is pickle.loads(pickle.dumps(first))\n"
        "print('all found')"
    )
    assert python(code) == "all found"


def test_every_other_name_is_looked_up_by_nnunet_itself() -> None:
    code = "register(); print(look_up('NibabelIO').__module__, look_up('NoSuchClass'))"
    assert python(code) == "nnunetv2.imageio.nibabel_reader_writer None"


def test_our_trainer_passes_nnunets_own_check_of_trainers() -> None:
    code = (
        "register()\nfrom nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "print(find('FedMEPDTrainer').__name__)"
    )
    assert python(code) == "FedMEPDTrainer"


def test_modules_that_already_hold_a_copy_of_the_look_up_get_the_new_one() -> None:
    code = (
        f"importers = {IMPORTERS}\nfor module in importers: importlib.import_module(module)\nregister()\n"
        "print(all(look_up('FedMEPDPlanner', module) is look_up('FedMEPDPlanner') is not None for module in importers))"
    )
    assert python(code) == "True"


def test_the_list_of_importers_above_is_complete() -> None:
    import nnunetv2

    folder = Path(nnunetv2.__file__).parent
    line = f"from {LOOKUP_MODULE} import"
    found = {path for path in folder.rglob("*.py") if line in path.read_text("utf-8") and "tests" not in path.parts}
    assert {".".join(("nnunetv2", *p.relative_to(folder).with_suffix("").parts)) for p in found} == set(IMPORTERS)


def test_registering_twice_wraps_once() -> None:
    code = (
        "stock = importlib.import_module('nnunetv2.utilities.find_class_by_name').recursive_find_python_class\n"
        "register(); register()\n"
        "now = importlib.import_module('nnunetv2.utilities.find_class_by_name').recursive_find_python_class\n"
        "print(now.__wrapped__ is stock)"
    )
    assert python(code) == "True"


def test_registering_works_where_the_hook_is_switched_off() -> None:
    assert python("register(); print(is_registered())", FEDMEPD_NO_HOOK="1") == "True"


def test_registering_imports_neither_torch_nor_our_classes() -> None:
    code = "register(); print('torch' in sys.modules, any(module in sys.modules for module in CLASSES.values()))"
    assert python(code) == "False False"


def test_the_hook_registers_when_nnunet_is_imported() -> None:
    assert python_with_hook("print(is_registered())") == "True"


def test_the_hook_itself_imports_neither_nnunet_nor_this_package() -> None:
    folder = str(HOOK)
    code = (
        f"import sys; sys.path.insert(0, {folder!r}); sys.modules.pop('nnunet_fedmepd_hook', None)\n"
        "before = set(sys.modules)\n"
        "import nnunet_fedmepd_hook as hook; hook.start(); print(sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "['nnunet_fedmepd_hook']\n"


def test_starting_the_hook_twice_adds_one_finder() -> None:
    code = "hook.start(); print(sum(type(finder).__name__ == 'LookupModuleFinder' for finder in sys.meta_path))"
    assert python_with_hook(code) == "1"


@pytest.mark.parametrize("attribute", ["__loader__", "__spec__.loader"])
def test_the_looked_up_module_keeps_its_own_loader(attribute: str) -> None:
    code = (
        f"import nnunetv2.utilities.find_class_by_name as module; print(type(module.{attribute}).__name__, "
        "importlib.import_module('inspect').getsource(module)[:6])"
    )
    assert python_with_hook(code) == "SourceFileLoader import"


def test_a_reloaded_module_is_registered_again() -> None:
    code = "import nnunetv2.utilities.find_class_by_name as m; importlib.reload(m); print(is_registered())"
    assert python_with_hook(code) == "True"


def test_where_this_package_is_broken_nnunet_works_and_a_warning_says_why() -> None:
    code = (
        "import warnings\nwarnings.simplefilter('error')\n"
        "sys.modules['nnunet_fedmepd.nnunet_plugin.registration'] = None\n"
        "try: importlib.import_module('nnunetv2.utilities.find_class_by_name')\n"
        "except UserWarning as warning: print(str(warning).split(':')[0])\n"
    )
    assert python_with_hook(code) == "nnU-Net will not find FedMEPD's classes"
    assert python_with_hook(code.replace("'error'", "'ignore'") + "print(look_up('NibabelIO').__name__)") == "NibabelIO"


def test_the_table_names_the_four_kinds_of_classes_that_commands_take() -> None:
    assert set(CLASSES) >= {"FedMEPDTrainer", "FedMEPDPlanner", "FedMEPDPreprocessor", "FedMEPDFingerprintExtractor"}
