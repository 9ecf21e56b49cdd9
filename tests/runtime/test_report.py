"""The command `report`, while a run goes on and when it was evaluated."""

from __future__ import annotations

import shutil

import SimpleITK

from nnunet_fedmepd.cli import main
from nnunet_fedmepd.evaluation.tables import CaseScore, EvaluationFolder, write_scores
from nnunet_fedmepd.runtime.local import LocalRun, NoObserver
from nnunet_fedmepd.runtime.preparation import prepare
from nnunet_fedmepd.runtime.run_folder import RunFolder
from tests.evaluation.report.made_up import Page
from tests.runtime.small_federation import OWNED, run, small_federation

REGIONS = ("core", "edema", "enhancing")


def report(folder, *words) -> Page:
    assert main(["report", str(folder), *words]) == 0
    return Page((folder / "report.html").read_text())


class ReportsInTheMiddle(NoObserver):
    """Asks for a report when the first site has finished its turn of a round."""

    def __init__(self, folder, number: int) -> None:
        self.folder, self.number, self.page = folder, number, None

    def turn_ends(self, round_number: int, site: str) -> None:
        if round_number == self.number and self.page is None:
            self.page = report(self.folder)


def evaluate(datasets, folder) -> dict[tuple[str, str], float]:
    """Let every site predict its training cases rightly, as if they were test cases; return made-up scores."""
    evaluation, dice, rows = EvaluationFolder(folder), {}, []
    for i, name in enumerate(OWNED):
        raw, predictions = datasets.raw / f"Dataset{500 + i}_{name}", evaluation.predictions(name)
        shutil.copytree(raw / "imagesTr", raw / "imagesTs")
        for target in (raw / "labelsTs", predictions):
            shutil.copytree(raw / "labelsTr", target)
        for number, file in enumerate(sorted(predictions.iterdir())):
            case = file.name.removesuffix(".nii.gz")
            for region in REGIONS:
                score = 0.1 + 0.2 * number + 0.01 * i
                dice[name, case] = score
                rows.append(CaseScore(name, case, "+".join(OWNED[name]), region, score, 5.0, score, 1.0, 1.0, "x"))
    write_scores(evaluation.cases, rows)
    return dice


def test_a_report_of_a_run_that_goes_on_and_of_the_finished_and_evaluated_run(datasets, tmp_path):
    federation, folder = small_federation(rounds=3), RunFolder(tmp_path / "run")
    prepared = prepare(federation)
    run_id = folder.open({"federation": federation.model_dump(mode="json"), "plans": dict(prepared.plan_digests)}, list)
    observer = ReportsInTheMiddle(folder.path, 3)
    LocalRun(prepared, run_id, folder, observer).run()

    going_on = observer.page
    assert "small: round 3 of 3, training a, b" in going_on.text
    assert "Once the run has ended, this command does it" in going_on.text
    assert going_on.needs_nothing_else()
    assert going_on.text.count("of uniform") >= 2, "sites a and b calibrate from the second round on"
    assert "Mean entropy of attention" in going_on.text

    dice = evaluate(datasets, folder.path)
    finished = report(folder.path)
    assert finished.needs_nothing_else()
    assert (folder.path / "report.html").stat().st_size < 3_000_000
    for site in OWNED:
        of_site = {case: score for (name, case), score in dice.items() if name == site}
        best, worst = max(of_site, key=of_site.get), min(of_site, key=of_site.get)
        assert f"{best}, mean Dice {of_site[best]:.3f}" in finished.text
        assert f"worst: {worst}, mean Dice {of_site[worst]:.3f}" in finished.text
    assert "a (T1ce)" in finished.text

    damaged = EvaluationFolder(folder.path).predictions("b") / "case0.nii.gz"
    SimpleITK.WriteImage(SimpleITK.Image(3, 3, 3, SimpleITK.sitkUInt8), str(damaged))
    assert "The cases of site b cannot be shown" in report(folder.path).text
    missing = report(folder.path, "--checkpoint", "best").text
    assert f"fedmepd evaluate {folder.path} --checkpoint best" in missing


def test_where_the_data_are_elsewhere_the_report_says_so_and_shows_the_rest(datasets, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run(small_federation(rounds=2), folder)
    evaluate(datasets, folder)
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(name, str(tmp_path))
    shown = report(folder)
    assert "Set nnUNet_raw to the sites' datasets" in shown.text
    assert "Set nnUNet_preprocessed to the folder that the run was trained from" in shown.text
    assert "0.200" in shown.text


def test_a_folder_without_a_run_is_an_error(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no federated run" in capsys.readouterr().err


def test_the_newest_state_can_be_read_while_a_run_replaces_it(tmp_path, monkeypatch):
    states = RunFolder(tmp_path).coordinator
    states.save(1, {}, {"round": 1})
    load = states.load

    def replaced_meanwhile(number):
        if number == 1:
            for later in (2, 3):
                states.save(later, {}, {"round": later})
        return load(number)

    monkeypatch.setattr(states, "load", replaced_meanwhile)
    assert states.load_newest()[1] == {"round": 3}
    assert RunFolder(tmp_path / "none").coordinator.load_newest() is None
