"""Which device a site trains on; the GPUs are counted only, for here are none."""

from __future__ import annotations

import os

import pytest
import torch

from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.runtime.devices import claim_device, default_device, devices_of_workers, require_devices
from nnunet_fedmepd.runtime.preparation import prepare
from nnunet_fedmepd.runtime.workers import OwnProcess, ProcessPool, WorkerSettings, start_workers
from tests.runtime.small_federation import small_federation


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def run_table(**run):
    return small_federation(run=run).run


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"devices": []}, ["cuda:0"]),
        ({"devices": [], "workers": 2}, ["cuda:0", "cuda:1"]),
        ({"devices": [], "workers": 3, "share_devices": True}, ["cuda:0", "cuda:1", "cuda:0"]),
        ({"devices": ["cuda:1"]}, ["cuda:1"]),
        ({"devices": ["cpu"], "workers": 2}, ["cpu", "cpu"]),
    ],
)
def test_every_worker_gets_a_gpu_of_its_own_unless_the_file_says_otherwise(two_gpus, run, expected):
    assert devices_of_workers(run_table(**run)) == expected


def test_more_workers_than_gpus_are_refused_where_the_file_names_none(two_gpus):
    with pytest.raises(ConfigurationError, match=r"3 workers would share cuda:0, cuda:1.*share_devices"):
        devices_of_workers(run_table(devices=[], workers=3))


def test_a_gpu_that_is_not_there_is_named_beside_those_that_are(two_gpus):
    with pytest.raises(ConfigurationError, match=r"No device cuda:2 here; torch sees cpu, cuda, cuda:0, cuda:1"):
        require_devices(["cuda:0", "cuda:2"])


def test_without_a_gpu_the_processor_trains(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert default_device() == "cpu"


@pytest.mark.parametrize(("visible", "expected"), [(None, "1"), ("", "1"), ("4,6", "6"), ("GPU-ab, GPU-cd", "GPU-cd")])
def test_gpus_are_counted_among_those_that_the_user_left_visible(monkeypatch, visible, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert claim_device("cuda:1", 1) == "cuda"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


@pytest.mark.parametrize(("device", "kind"), [("cpu", OwnProcess), ("cuda:0", OwnProcess), ("cuda:1", ProcessPool)])
def test_a_single_worker_on_another_than_the_first_gpu_has_a_process_that_sees_only_that_one(
    datasets, two_gpus, tmp_path, device, kind
):
    prepared = prepare(small_federation(run={"devices": [device]}))
    workers = start_workers(WorkerSettings(prepared.federation, tmp_path, "run", prepared.sites))
    assert isinstance(workers, kind)
    workers.close()
