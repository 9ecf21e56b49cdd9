"""Finds image, reference and prediction of evaluated cases."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.errors import FedMEPDError
from nnunet_fedmepd.evaluation.report.record import CaseImages
from nnunet_fedmepd.evaluation.tables import CaseScore, EvaluationFolder
from nnunet_fedmepd.nnunet_plugin.held_out import HeldOut, find_test_cases, find_validation_cases
from nnunet_fedmepd.runtime.planned_site import site_files


def evaluated_images(
    federation: Federation, evaluation: EvaluationFolder, scores: Sequence[CaseScore], missing: dict[str, str]
) -> dict[tuple[str, str], CaseImages]:
    """Return (site, case) -> its files, where all are there; `missing` is told why some are not.

    Args:
        federation: of the run.
        evaluation: where the predictions are.
        scores: of the cases.
        missing: gets an entry `cases`.
    """
    images, absent = {}, []
    for site in dict.fromkeys(score.site for score in scores):
        cases = {score.case for score in scores if score.site == site}
        try:
            found = _site_images(federation, evaluation, site)
        except (FedMEPDError, RuntimeError, OSError) as error:
            absent.append(f"{site}: {str(error).splitlines()[0].rstrip('.')}")
            continue
        images.update({(site, case): files for case, files in found.items() if case in cases})
        if lacking := sorted(cases - found.keys()):
            absent.append(f"{site}: {len(lacking)} cases without image, reference or prediction, first {lacking[0]}")
    if absent:
        missing["cases"] = f"Not all cases can be shown. {'; '.join(absent)}. Set nnUNet_raw to the sites' datasets."
    return images


def _site_images(federation: Federation, evaluation: EvaluationFolder, site: str) -> dict[str, CaseImages]:
    held_out, folder = _held_out(federation, evaluation, site), evaluation.predictions(site)
    ending = held_out.description["file_ending"]
    found = {}
    for case in held_out.cases:
        modality = next(m for m in reversed(federation.modalities) if m in case.images)  # of BraTS, FLAIR is the last
        files = CaseImages(modality, case.images[modality], case.reference, folder / f"{case.name}{ending}")
        if files.prediction.is_file():
            found[case.name] = files
    return found


def _held_out(federation: Federation, evaluation: EvaluationFolder, site: str) -> HeldOut:
    dataset = site_files(site, federation).dataset
    if evaluation.split == "test":
        return find_test_cases(dataset, federation.vocabulary)
    return find_validation_cases(dataset, federation.vocabulary, int(federation.run.fold))
