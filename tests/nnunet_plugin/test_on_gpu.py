"""A site's training and prediction on a GPU."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

from nnunet_fedmepd.nnunet_plugin.registration import register
from tests.nnunet_plugin.small_dataset import BRATS, make_dataset, prepare, write_case

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.fixture
def lead(nnunet_paths, monkeypatch):
    register()
    for name, value in {"FEDMEPD_NUM_ITERATIONS_PER_EPOCH": "4", "FEDMEPD_NUM_VAL_ITERATIONS_PER_EPOCH": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # nnU-Net's planner cannot plan with 0
    return prepare(make_dataset("Dataset001_lead"))


def command(*words):
    """Run a command of nnU-Net, and return what it printed."""
    words = [sys.executable, "-m", "nnunet_fedmepd", *map(str, words)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_stock_commands_train_compiled_and_predict_what_the_processor_predicts(lead, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMEPD_NUM_EPOCHS", "3")
    said = command("train", 1, "3d_fullres", "all", "-tr", "FedMEPDTrainer", "-p", "FedMEPDTinyPlans")
    assert "Using torch.compile" in said
    assert "graph break" not in said
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(3):
        write_case(images, f"case{seed}", BRATS, seed=seed)
    predicted = []
    for device in ("cuda", "cpu"):
        folder = tmp_path / device
        model = ("-d", 1, "-c", "3d_fullres", "-f", "all", "-tr", "FedMEPDTrainer", "-p", "FedMEPDTinyPlans")
        command("predict", "-i", images, "-o", folder, *model, "-device", device, "-npp", 1, "-nps", 1)
        predicted.append(np.stack([_voxels(file) for file in sorted(folder.glob("*.nii.gz"))]))
    on_gpu, on_processor = predicted
    assert (on_gpu == on_processor).mean() > 0.99, "float16 moves a boundary by a voxel at most"


def test_a_resumed_training_goes_on(lead, monkeypatch):
    monkeypatch.setenv("nnUNet_compile", "0")
    monkeypatch.setenv("FEDMEPD_NUM_EPOCHS", "2")
    trainer = lead.trainer(device="cuda")
    trainer.run_training()
    resumed = lead.trainer(device="cuda")
    resumed.load_checkpoint(trainer.output_folder + "/checkpoint_final.pth")
    assert resumed.current_epoch == 2
    assert resumed.grad_scaler.get_scale() == trainer.grad_scaler.get_scale()
    assert resumed.bare_network.calibrations[0].valid.any()
    assert next(iter(resumed.optimizer.state.values()))["exp_avg"].is_cuda


def test_no_line_of_ours_makes_a_training_step_wait_for_the_gpu(lead, monkeypatch):
    monkeypatch.setenv("nnUNet_compile", "0")
    monkeypatch.setenv("FEDMEPD_MODALITY_DROPOUT", "0.5")
    trainer = lead.trainer(device="cuda")
    trainer.on_train_start()
    batches = [next(trainer.dataloader_train) for _ in range(3)]
    trainer.train_step(batches[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        for batch in batches[1:]:
            trainer.train_step(batch)
        torch.cuda.set_sync_debug_mode("default")
    waits = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    trainer.on_train_end()
    assert not [wait for wait in waits if not wait.startswith("grad_scaler.py")], "nnU-Net's scaler asks for overflow"


def _voxels(file):
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
