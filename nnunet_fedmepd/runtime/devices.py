"""The devices that sites train on: which there are, which a worker gets, and how a process takes its own."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from nnunet_fedmepd.config.cross_checks import share_a_gpu
from nnunet_fedmepd.config.federation import RunTable
from nnunet_fedmepd.errors import ConfigurationError


def devices_of_workers(run: RunTable) -> list[str]:
    """Return the device of every worker: the file's in turn, else the first GPUs, else the CPU.

    Raises:
        ConfigurationError: this machine has no such device, or workers would share a GPU unasked.
    """
    devices = list(run.devices) or _default_devices(run.workers)
    require_devices(devices)
    if share_a_gpu(devices, run.workers) and not run.share_devices:
        raise ConfigurationError(
            f"{run.workers} workers would share {', '.join(devices)}: expected a GPU for each. Ask for fewer with "
            "--workers, or set share_devices = true under [run] to allow it."
        )
    return [devices[i % len(devices)] for i in range(run.workers)]


def default_device() -> str:
    """Return the first GPU, else the CPU."""
    return _default_devices(1)[0]


def _default_devices(n_wanted: int) -> list[str]:
    if n_gpus := torch.cuda.device_count():
        return [f"cuda:{i}" for i in range(min(n_wanted, n_gpus))]
    return ["mps" if torch.backends.mps.is_available() else "cpu"]


def require_devices(devices: Sequence[str]) -> None:
    """Check that this machine has some devices.

    Args:
        devices: such as `cuda:0`, `cpu`.

    Raises:
        ConfigurationError: it lacks some; all of them are listed.
    """
    n_gpus = torch.cuda.device_count()
    there = {"cpu", *(f"cuda:{i}" for i in range(n_gpus))}
    there |= {"cuda"} if n_gpus else set()
    there |= {"mps"} if torch.backends.mps.is_available() else set()
    if missing := [device for device in dict.fromkeys(devices) if device not in there]:
        raise ConfigurationError(
            f"No device {', '.join(missing)} here; torch sees {', '.join(sorted(there))}. Choose among these with "
            "--devices or under [run], and see `fedmepd doctor` where a GPU should be there."
        )


def load_data_in_the_training_process() -> None:
    """Start no data workers of nnU-Net, unless nnUNet_n_proc_DA says otherwise.

    On a CPU they would compete with the training, and what they draw could not be repeated.
    """
    os.environ.setdefault("nnUNet_n_proc_DA", "0")


def claim_device(device: str, n_threads: int) -> str:
    """Prepare a new process for a device, and return what it is called there.

    nnU-Net always takes the first visible GPU, so only one is left visible.

    Args:
        device: such as `cuda:1` or `cpu`; GPUs are counted among those that CUDA_VISIBLE_DEVICES leaves.
        n_threads: of a training on the CPU, unless OMP_NUM_THREADS says otherwise.
    """
    kind, _, number = device.partition(":")
    if kind == "cuda" and number:
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(number)].strip() if visible else number
    if kind == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", str(n_threads))
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return kind
