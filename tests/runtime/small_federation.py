"""Federations of a few tiny datasets, planned together, and run in this process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from nnunetv2.paths import nnUNet_results
from rich.console import Console

from nnunet_fedmepd.config.federation import Federation, PlanningTable
from nnunet_fedmepd.runtime.planning import plan_together
from nnunet_fedmepd.runtime.running import run_federation
from tests.nnunet_plugin.small_dataset import BRATS, make_dataset

Owned = Mapping[str, tuple[str, ...]]
OWNED: Owned = {"lead": BRATS, "a": ("T1ce",), "b": ("T2", "FLAIR")}
CONSOLE = Console(quiet=True)
UNROUNDED = {"codec": "none"}  # a [method] by which updates are sent as they are


def make_datasets(owned: Owned = OWNED, n_cases: int = 2) -> None:
    """Write, plan and preprocess one dataset per site, of `n_cases` cases and one more at every site."""
    for i, (name, modalities) in enumerate(owned.items()):
        make_dataset(f"Dataset{500 + i}_{name}", modalities, n_cases=n_cases + i)
    planning = PlanningTable(planner="FedMEPDTinyPlanner", gpu_memory_gb=0.02)
    with mock.patch.dict(os.environ, nnUNet_n_proc_DA="1"):  # nnU-Net's planner cannot plan with 0
        plan_together(small_federation(owned=owned).model_copy(update={"planning": planning}), CONSOLE)


def small_federation(rounds: int = 2, owned: Owned = OWNED, **changes: Any) -> Federation:
    """Return a federation of `make_datasets`' sites, of which `lead` leads; tables in `changes` are merged."""
    sites = [{"name": name, "dataset": 500 + i, "lead": name.startswith("lead")} for i, name in enumerate(owned)]
    for site in sites:
        site.update(changes.get("sites", {}).get(site["name"], {}))
    training = {
        "num_iterations_per_epoch": 2,
        "num_val_iterations_per_epoch": 1,
        "plot_every": 1000,
        "final_validation": False,
        **changes.get("training", {}),
    }
    return Federation.model_validate(
        {
            "name": "small",
            "modalities": BRATS,
            "rounds": rounds,
            "site": sites,
            "planning": {"planner": "FedMEPDTinyPlanner"},
            "method": {"personalization": {"patience": 1, "warm_up_rounds": 0}, **changes.get("method", {})},
            "training": training,
            "run": {"devices": ["cpu"], **changes.get("run", {})},
        }
    )


def run(federation: Federation, folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Run a federation, over the models of any other, and return every site's final weights."""
    run_federation(federation, folder, CONSOLE, overwrite=True)
    return final_weights(federation)


def final_weights(federation: Federation) -> dict[str, dict[str, torch.Tensor]]:
    """Return site -> weights of its nnU-Net checkpoint."""
    return {site.name: checkpoint(site.name, site.dataset)["network_weights"] for site in federation.site}


def checkpoint(name: str, dataset: int | str) -> dict[str, Any]:
    """Return a site's final checkpoint."""
    return torch.load(results_folder(name, dataset) / "fold_all" / "checkpoint_final.pth", weights_only=False)


def results_folder(name: str, dataset: int | str) -> Path:
    """Return a site's nnU-Net results folder."""
    return Path(str(nnUNet_results)) / f"Dataset{dataset}_{name}" / "FedMEPDTrainer__FedMEPDTinyPlans__3d_fullres"


def alike(a: dict[str, dict[str, torch.Tensor]], b: dict[str, dict[str, torch.Tensor]]) -> bool:
    """Return whether all weights of all sites are the same to the bit."""
    return a.keys() == b.keys() and all(
        a[site].keys() == b[site].keys() and all(torch.equal(a[site][name], b[site][name]) for name in a[site])
        for site in a
    )
