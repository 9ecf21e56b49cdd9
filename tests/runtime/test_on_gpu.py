"""A federation whose sites train on one GPU, with nnU-Net's data workers."""

import pytest
import torch

from nnunet_fedmepd.runtime.run_folder import RunFolder
from tests.runtime.small_federation import checkpoint, run, small_federation

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.parametrize("sharing", [{}, {"workers": 2, "devices": ["cuda:0"], "share_devices": True}])
def test_sites_train_in_turns_or_side_by_side_on_one_gpu(datasets, tmp_path, monkeypatch, sharing):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    monkeypatch.setenv("nnUNet_compile", "0")  # the shape checks of the tests are no part of what users compile
    weights = run(small_federation(3, run={"devices": [], **sharing}), tmp_path / "run")
    if not sharing:
        assert torch.backends.cudnn.benchmark, "as nnUNetv2_train sets it"
    assert len(RunFolder(tmp_path / "run").journal()) == 9, "three sites, three rounds"
    assert all(tensor.isfinite().all() for site in weights.values() for tensor in site.values())
    assert checkpoint("a", 501)["network_weights"]["calibrations.0.in_use"]
    assert checkpoint("a", 501)["grad_scaler_state"]["scale"] > 0
