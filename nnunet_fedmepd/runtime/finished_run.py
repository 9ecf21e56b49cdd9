"""The models that a finished federated run left behind, and the cases to try them on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.nnunet_plugin.held_out import HeldOut, find_test_cases, find_validation_cases
from nnunet_fedmepd.nnunet_plugin.prediction import TrainedModel
from nnunet_fedmepd.runtime.run_folder import RunError, RunFolder, read_json
from nnunet_fedmepd.runtime.running import OWNER, results_folder


@dataclass(frozen=True)
class SiteModel:
    """A model, and the held-out cases of the site that it is for.

    Attributes:
        site: name.
        model: to predict with.
        held_out: the site's cases.
    """

    site: str
    model: TrainedModel
    held_out: HeldOut


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended.

    Attributes:
        path: its folder.
        run_id: its id.
        federation: the file that it was started with.
        results: site -> folder of its fold in nnU-Net's results, as it was when the run ended.
    """

    path: Path
    run_id: str
    federation: Federation
    results: Mapping[str, Path]

    def site_models(self, checkpoint: str, split: str) -> list[SiteModel]:
        """Return every trained site's model and held-out cases.

        Args:
            checkpoint: `final`, or `best` on the validation cases.
            split: `test` or `val`.

        Raises:
            ConfigurationError: there are no validation cases, a dataset is not in nnUNet_raw, or nobody holds out any.
            RunError: a model is gone, or replaced by that of another run.
        """
        if "best" in checkpoint or split == "val":
            self._check_validation(checkpoint)
        models = [
            SiteModel(site.name, self._model(site.name, checkpoint), self._held_out(site.dataset, split))
            for site in self.federation.site
            if site.name in self.results
        ]
        if not any(model.held_out.cases for model in models):
            raise ConfigurationError(
                "No site has cases to evaluate on: expected images in imagesTs and reference segmentations in labelsTs "
                "of the sites' datasets in nnUNet_raw. `fedmepd convert` puts there what its table calls 'test'."
            )
        return models

    def dataset(self, site: str) -> str:
        """Return the full name of a site's nnU-Net dataset."""
        return _full_name(self.federation.site_named(site).dataset)

    def _check_validation(self, checkpoint: str) -> None:
        if self.federation.run.fold == "all":
            asked = "The best checkpoint" if checkpoint == "best" else "Evaluation on validation cases"
            raise ConfigurationError(
                f"{asked} needs validation cases, but this run was trained on all cases (run.fold = 'all'). Evaluate "
                "the final checkpoint on test cases, or train with run.fold = 0: a table for `fedmepd convert --split` "
                "may say which cases are for validation (split 'val'); otherwise nnU-Net takes a fifth of 5 or more."
            )

    def _held_out(self, dataset: int | str, split: str) -> HeldOut:
        vocabulary, fold = self.federation.vocabulary, self.federation.run.fold
        if split == "test":
            return find_test_cases(_full_name(dataset), vocabulary)
        return find_validation_cases(_full_name(dataset), vocabulary, int(fold))

    def _model(self, site: str, checkpoint: str) -> TrainedModel:
        """Return a site's model; results folders may have moved, together with nnUNet_results."""
        here = results_folder(self.dataset(site), self.federation)
        for folder in (here, self.results[site]):
            if (folder / OWNER).is_file() and read_json(folder / OWNER)["run_id"] == self.run_id:
                return TrainedModel(folder, checkpoint)
        raise RunError(
            f"The model of site {site!r} is gone: neither {here} nor {self.results[site]} holds one of this run. Was "
            "it replaced by another training? Set nnUNet_results to where the models are, or run the federation again."
        )


def open_finished_run(path: Path) -> FinishedRun:
    """Return a run that has ended.

    Raises:
        RunError: there is no run, or it has not ended.
    """
    status = RunFolder(path).status()
    if status["state"] != "finished":
        raise RunError(
            f"The run in {path} has not ended: round {status['round']} of {status['rounds']}. Wait for it, or start "
            "`fedmepd run` with the same arguments again: it goes on where it was."
        )
    known: dict[str, Any] = read_json(path / "run.json")
    federation = Federation.model_validate(known["identity"]["federation"])
    results = {site: Path(folder) for site, folder in status["results"].items()}
    return FinishedRun(path, known["run_id"], federation, results)


def _full_name(dataset: int | str) -> str:
    try:
        return str(maybe_convert_to_dataset_name(dataset))
    except RuntimeError as error:
        raise ConfigurationError(
            f"{str(error).split('. ')[0]}. Set nnUNet_raw to the folder of the datasets."
        ) from None
