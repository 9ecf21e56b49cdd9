"""The models that a finished federated run left behind, and the cases to try them on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import parse_federation
from nnunet_fedmepd.errors import ConfigurationError
from nnunet_fedmepd.nnunet_plugin.folds import read_fold, splits_file
from nnunet_fedmepd.nnunet_plugin.held_out import HeldOut, find_test_cases, find_validation_cases
from nnunet_fedmepd.nnunet_plugin.prediction import TrainedModel
from nnunet_fedmepd.runtime.owned_results import is_owned, results_folder
from nnunet_fedmepd.runtime.run_folder import RunError, RunFolder


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
        folds: site -> digest of the cases of its fold, as they were when the run began; over a network none.
    """

    path: Path
    run_id: str
    federation: Federation
    results: Mapping[str, Path]
    folds: Mapping[str, str]

    def site_models(self, checkpoint: str, split: str) -> list[SiteModel]:
        """Return every trained site's model and held-out cases.

        Args:
            checkpoint: `final`, or `best` on the validation cases.
            split: `test` or `val`.

        Raises:
            ConfigurationError: there are no validation cases, a dataset is not in nnUNet_raw, or nobody holds out any.
            RunError: the folds are not those of the training any more; a model is gone, or replaced by that of another
                run.
        """
        if checkpoint == "best" or split == "val":
            self._check_validation(checkpoint)
        if split == "val":
            self._check_folds()
        held_out = find_held_out(self.federation, split)
        return [SiteModel(site, self.model(site, checkpoint), held_out[site]) for site in self.results]

    def model(self, site: str, checkpoint: str) -> TrainedModel:
        """Return a site's model: from nnUNet_results, to where models may have moved, or from where the run left it.

        Raises:
            RunError: it is gone, or replaced by that of another run.
        """
        places = [self.results[site]]
        if nnUNet_results.is_set():
            places.insert(0, results_folder(full_name(self.federation.site_named(site).dataset), self.federation))
        for folder in places:
            if is_owned(folder, self.run_id):
                return TrainedModel(folder, checkpoint)
        raise RunError(
            f"The model of site {site!r} is gone: expected one of this run in {' or '.join(map(str, places))}. Was it "
            "replaced by another training? Set nnUNet_results to where the models are, or run the federation again."
        )

    def steps_per_round(self, site: str) -> int:
        """Return how many training steps a site took in a round that it took part in.

        Raises:
            RunError: its model is gone, or replaced by that of another run.
        """
        return self.federation.epochs_per_round * self.model(site, "final").steps_per_epoch()

    def _check_validation(self, checkpoint: str) -> None:
        if self.federation.run.fold == "all":
            asked = "The best checkpoint" if checkpoint == "best" else "Evaluation on validation cases"
            raise ConfigurationError(
                f"{asked} needs validation cases, but this run was trained on all cases (run.fold = 'all'). Evaluate "
                "the final checkpoint on test cases, or train with run.fold = 0: a table for `fedmepd convert --split` "
                "may say which cases are for validation (split 'val'); otherwise nnU-Net takes a fifth of 5 or more."
            )

    def _check_folds(self) -> None:
        """Check that what is called validation cases now was not trained on."""
        fold = int(self.federation.run.fold)
        for site, digest in self.folds.items():
            file = splits_file(Path(str(nnUNet_preprocessed)) / full_name(self.federation.site_named(site).dataset))
            if file.is_file() and read_fold(file, fold).digest() != digest:
                raise RunError(
                    f"Fold {fold} of {file} is not the one that site {site!r} was trained with: its validation cases "
                    "may be cases that it was trained on. Restore the file, or run the federation again."
                )


def find_held_out(federation: Federation, split: str) -> dict[str, HeldOut]:
    """Return the held-out cases of every site.

    Raises:
        ConfigurationError: a dataset is not in nnUNet_raw, or no site holds out any case.
    """
    vocabulary, fold = federation.vocabulary, federation.run.fold
    held_out = {
        site.name: find_test_cases(full_name(site.dataset), vocabulary)
        if split == "test"
        else find_validation_cases(full_name(site.dataset), vocabulary, int(fold))
        for site in federation.site
    }
    if not any(own.cases for own in held_out.values()):
        raise ConfigurationError(
            "No site has cases to evaluate on: expected images in imagesTs and reference segmentations in labelsTs "
            "of the sites' datasets in nnUNet_raw. `fedmepd convert` puts there what its table calls 'test'."
        )
    return held_out


def open_finished_run(path: Path) -> FinishedRun:
    """Return a run that has ended.

    Raises:
        ConfigurationError: this version cannot read the federation that was run.
        RunError: there is no run, or it has not ended.
    """
    status = RunFolder(path).status()
    if status["state"] != "finished":
        raise RunError(
            f"The run in {path} has not ended: round {status['round']} of {status['rounds']}. Wait for it, or start "
            "`fedmepd run` with the same arguments again: it goes on where it was."
        )
    known = RunFolder(path).started_with()
    federation = parse_federation(known["identity"]["federation"], str(path / "run.json"))
    folders = status["results"]
    results = {site.name: Path(folders[site.name]) for site in federation.site if site.name in folders}
    folds = {site: data["fold"] for site, data in known["identity"].get("data", {}).items()}
    return FinishedRun(path, known["run_id"], federation, results, folds)


def full_name(dataset: int | str) -> str:
    """Return the full name of an nnU-Net dataset.

    Raises:
        ConfigurationError: there is none of this number.
    """
    try:
        return str(maybe_convert_to_dataset_name(dataset))
    except RuntimeError as error:
        raise ConfigurationError(
            f"{str(error).split('. ')[0]}. Set nnUNet_raw to the folder of the datasets."
        ) from None
