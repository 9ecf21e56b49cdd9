"""`fedmepd doctor`: what is installed, whether nnU-Net finds our classes, the folders, the machine; and what to do."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.markup import escape

from nnunet_fedmepd import __version__
from nnunet_fedmepd.nnunet_plugin import registration

GIB = 1024**3
SUPPORTED_PYTHON = SpecifierSet(">=3.10,<3.14")
SUPPORTED_VERSIONS = {"nnunetv2": SpecifierSet(">=2.8.1,<2.9"), "torch": SpecifierSet(">=2.1.2,!=2.9.*")}
PATH_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
LOW_DISK_GIB, LEAST_DISK_GIB = 20, 1
LOW_MEMORY_GIB, LEAST_MEMORY_GIB = 8, 2
LOW_GPU_MEMORY_GIB = 8  # what nnU-Net plans for unless told otherwise
RUN_AS_MODULE = "run nnU-Net's commands as `python -m nnunet_fedmepd train ...` instead of `nnUNetv2_train ...`"


class Status(Enum):
    """How serious a finding is; the value is the colour it is drawn in."""

    OK = "green"
    WARN = "yellow"
    FAIL = "red"


@dataclass(frozen=True)
class Finding:
    """One line of the report; `remedy` says what to do unless all is well."""

    status: Status
    subject: str
    found: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Doctor takes no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print every finding as soon as it is made; 1 if there is any FAIL."""
    console = Console(highlight=False)
    statuses = []
    for finding in examine():
        _print_finding(console, finding)
        statuses.append(finding.status)
    fails, warns, oks = (statuses.count(status) for status in (Status.FAIL, Status.WARN, Status.OK))
    console.print(f"\n{fails} to repair, {warns} to look at, {oks} in order.")
    return 1 if fails else 0


def _print_finding(console: Console, finding: Finding) -> None:
    colour = finding.status.value
    line = f"[{colour}]{finding.status.name:4}[/]  [bold]{finding.subject}[/]: {escape(finding.found)}"
    console.print(line, soft_wrap=True)
    if finding.remedy:
        console.print(f"      [{colour}]→[/] {escape(finding.remedy)}", soft_wrap=True)


def examine() -> Iterator[Finding]:
    """Yield all findings, from the interpreter outwards to the machine."""
    yield check_python()
    yield check_this_package()
    for package, supported in SUPPORTED_VERSIONS.items():
        yield check_version(package, supported)
    yield check_import(
        "torchvision", "nnU-Net's search for trainers imports it; install the release made for your torch"
    )
    if sys.version_info >= (3, 12):
        yield check_import("setuptools", "nnU-Net still imports distutils, which it provides: pip install setuptools")
    yield check_hook()
    yield check_hook_in_worker()
    yield check_external_trainers()
    for variable in PATH_VARIABLES:
        yield from check_folder(variable)
    yield check_memory()
    yield from check_gpus()


def check_python() -> Finding:
    """Is this interpreter among the supported ones?"""
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if SUPPORTED_PYTHON.contains(".".join(map(str, sys.version_info[:3]))):
        return Finding(Status.OK, "Python", found)
    return Finding(Status.FAIL, "Python", found, f"use a Python {SUPPORTED_PYTHON}")


def check_this_package() -> Finding:
    """Is this package installed, and where is it?"""
    folder = Path(registration.__file__).parents[1]
    found = f"{__version__} at {folder}"
    if __version__.endswith("uninstalled"):
        return Finding(Status.WARN, "nnunet-fedmepd", found, f"pip install {folder.parent}, or {RUN_AS_MODULE}")
    return Finding(Status.OK, "nnunet-fedmepd", found)


def check_version(package: str, supported: SpecifierSet) -> Finding:
    """Is a package installed in a version that this package works with?"""
    remedy = f'pip install "{package}{supported}"'
    try:
        found = version(package)
    except PackageNotFoundError:
        return Finding(Status.FAIL, package, "not installed", remedy)
    if supported.contains(found, prereleases=True):
        return Finding(Status.OK, package, found)
    return Finding(Status.FAIL, package, f"{found}, expected {supported}", remedy)


def check_import(module: str, remedy: str) -> Finding:
    """Can a module be imported? A compiled one that fits nothing else here raises all sorts of errors."""
    try:
        imported = importlib.import_module(module)
    except Exception as problem:
        return Finding(Status.FAIL, module, f"cannot be imported: {type(problem).__name__}: {problem}", remedy)
    return Finding(Status.OK, module, str(getattr(imported, "__version__", "importable")))


def check_hook() -> Finding:
    """Does nnU-Net find our classes in this process?"""
    return _judge_hook("nnU-Net plug-in", _is_registered())


def check_hook_in_worker() -> Finding:
    """Does nnU-Net find our classes in a worker that starts as a new interpreter?"""
    subject = "nnU-Net plug-in in spawned workers"
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as workers:
            return _judge_hook(subject, workers.submit(_is_registered).result())
    except BrokenProcessPool as problem:
        return Finding(Status.FAIL, subject, f"the worker died: {problem}", "see the message of the worker above")


def _is_registered() -> bool | str:
    """Whether nnU-Net finds our classes, or why that cannot be told."""
    try:
        return registration.is_registered()
    except ImportError as problem:
        return f"nnU-Net cannot be imported: {problem}"


def _judge_hook(subject: str, registered: bool | str) -> Finding:
    if registered is True:
        return Finding(Status.OK, subject, "active: nnU-Net finds " + ", ".join(registration.CLASSES))
    if isinstance(registered, str):
        return Finding(Status.FAIL, subject, registered, "install nnU-Net in this environment")
    if os.environ.get("FEDMEPD_NO_HOOK"):
        return Finding(Status.FAIL, subject, "switched off by FEDMEPD_NO_HOOK", "unset FEDMEPD_NO_HOOK")
    if importlib.util.find_spec("nnunet_fedmepd_hook") is None:
        return Finding(Status.FAIL, subject, "not installed", f"pip install the package, or {RUN_AS_MODULE}")
    found = "installed where Python processes no .pth files (PYTHONPATH, `pip --target`, `python -S`)"
    return Finding(Status.FAIL, subject, found, f"pip install into an environment, or {RUN_AS_MODULE}")


def check_external_trainers() -> Finding:
    """nnU-Net's own variable for trainers elsewhere: searched after our names, so it gets in nobody's way."""
    subject, folders = "nnUNet_extTrainer", os.environ.get("nnUNet_extTrainer")
    if not folders:
        return Finding(Status.OK, subject, "not set, and not needed")
    missing = [folder for folder in folders.split(os.pathsep) if folder.strip() and not Path(folder).is_dir()]
    if missing:
        return Finding(Status.WARN, subject, f"no such folder: {', '.join(missing)}", "correct or unset the variable")
    return Finding(Status.OK, subject, f"{folders}; nnU-Net searches it for other trainers only")


def check_folder(variable: str) -> Iterator[Finding]:
    """Is one of nnU-Net's three path variables set, to a folder that can be written and has room?"""
    value = os.environ.get(variable)
    if not value:
        yield Finding(Status.FAIL, variable, "not set", f"export {variable}=/a/folder/with/room")
        return
    folder = Path(value)
    if not folder.is_dir():
        is_other = folder.exists()
        remedy = "set the variable to a folder" if is_other else f"mkdir -p {value}"
        yield Finding(Status.FAIL, variable, f"{value} {'is not a folder' if is_other else 'does not exist'}", remedy)
        return
    yield _check_writable(variable, folder)
    yield _check_disk(variable, folder)


def _check_writable(variable: str, folder: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Finding(Status.OK, variable, f"{folder} is writable")
    except OSError as problem:
        found = f"{folder} is not writable: {problem.strerror}"
        return Finding(Status.FAIL, variable, found, "choose another folder, or have its permissions changed")


def _check_disk(variable: str, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / GIB
    remedy = "free some space or move the folder; a preprocessed dataset is several times as large as its images"
    return _judge_amount(f"free disk at {variable}", free, LOW_DISK_GIB, LEAST_DISK_GIB, remedy)


def check_memory() -> Finding:
    """Is there enough main memory for nnU-Net's workers?"""
    # What only caches files is available: it is given back when needed.
    available = psutil.virtual_memory().available / GIB
    remedy = "close other programs, or give nnU-Net fewer workers (nnUNet_def_n_proc, nnUNet_n_proc_DA, -np)"
    return _judge_amount("free memory", available, LOW_MEMORY_GIB, LEAST_MEMORY_GIB, remedy)


def _judge_amount(subject: str, amount: float, low: float, least: float, remedy: str) -> Finding:
    if amount >= low:
        return Finding(Status.OK, subject, f"{amount:.0f} GiB")
    status = Status.FAIL if amount < least else Status.WARN
    return Finding(status, subject, f"{amount:.1f} GiB, expected at least {low} GiB", remedy)


def check_gpus() -> Iterator[Finding]:
    """Which GPUs does torch see, and what memory do they have?"""
    try:
        import torch
    except Exception as problem:
        found = f"torch cannot be imported: {type(problem).__name__}: {problem}"
        yield Finding(Status.FAIL, "GPU", found, "reinstall torch, see pytorch.org/get-started")
        return
    if not torch.cuda.is_available():
        yield _explain_missing_gpu(torch.version.cuda)
    for index in range(torch.cuda.device_count()):
        free, total = (amount / GIB for amount in torch.cuda.mem_get_info(index))
        subject = f"GPU {index} ({torch.cuda.get_device_name(index)}, {total:.0f} GiB), free memory"
        remedy = "see with nvidia-smi who uses it, or plan for less with -gpu_memory_target"
        yield _judge_amount(subject, free, LOW_GPU_MEMORY_GIB, 1, remedy)


def _explain_missing_gpu(cuda: str | None) -> Finding:
    if shutil.which("nvidia-smi") is None:
        remedy = (
            "fit for the demo and the tests (give nnU-Net's commands `-device cpu`); real training needs an NVIDIA GPU"
        )
        return Finding(Status.WARN, "GPU", "none", remedy)
    if cuda is None:
        found, remedy = "this torch was built without CUDA", "install a CUDA build, see pytorch.org/get-started"
    else:
        found = f"torch was built for CUDA {cuda} but cannot use the GPU"
        remedy = "compare with the driver's CUDA version that nvidia-smi prints; see CUDA_VISIBLE_DEVICES"
    return Finding(Status.WARN, "GPU", found, remedy)
