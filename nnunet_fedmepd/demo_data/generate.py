"""A data set of several sites: the folder, its cases, the table of cases and the settings."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from nnunet_fedmepd.demo_data.layouts import LAYOUTS, identify_brats2018
from nnunet_fedmepd.demo_data.phantom import PhantomSettings, make_case
from nnunet_fedmepd.demo_data.records import CaseRecord, read_record, write_record
from nnunet_fedmepd.demo_data.settings import DemoDataSettings
from nnunet_fedmepd.demo_data.sites import Site, draw_site
from nnunet_fedmepd.demo_data.workers import run_all
from nnunet_fedmepd.demo_data.writing import write_case, write_table, write_text
from nnunet_fedmepd.errors import ConfigurationError

GENERATOR_VERSION = 1  # a higher one makes other voxels from the same settings
SETTINGS_FILE = "demo_data.json"
TABLE_FILE = "site_mapping.csv"


@dataclass(frozen=True)
class CaseTask:
    """All that is needed to make one case."""

    case: str
    site: Site
    case_index: int
    split: str
    seed: int
    layout: str
    phantom: PhantomSettings


def generate(out: Path, settings: DemoDataSettings, workers: int = 2) -> Path:
    """Make a data set, or complete one whose making was interrupted.

    Args:
        out: folder of the data set; new, empty, or holding one made with the same settings.
        settings: what to make.
        workers: processes; with more than one, a script needs the `if __name__ == "__main__":` guard.

    Returns:
        The table of cases, `site_mapping.csv`, with the columns case, site and split and what is known about each.

    Raises:
        ConfigurationError: `workers` is below 1, or the folder holds other files or a data set of other settings.
    """
    if workers < 1:
        raise ConfigurationError(f"Demo data: workers: expected at least 1; found {workers}.")
    out = Path(out)
    sites = [draw_site(settings.seed, k, settings.heterogeneity, name) for k, name in enumerate(settings.names)]
    _claim_folder(out, settings, sites)
    tasks = plan_cases(settings, sites)
    layout = LAYOUTS[settings.layout]
    records = {task.case: read_record(out, task.case, layout) for task in tasks}
    pending = [task for task in tasks if records[task.case] is None]
    if pending:
        made = run_all(partial(_make_and_write, out), pending, workers, "Demo data")
        records |= {record.case: record for record in made}
    return _write_tables(out, settings, [record for record in records.values() if record is not None])


def plan_cases(settings: DemoDataSettings, sites: list[Site]) -> list[CaseTask]:
    """Return the cases of all sites, in the order of the table."""
    numbered = [(site, k) for site, count in zip(sites, settings.case_counts, strict=True) for k in range(count)]
    identify = LAYOUTS[settings.layout].identify
    return [
        CaseTask(
            case=identify(site.name, case_index, index),
            site=site,
            case_index=case_index,
            split=_split(settings, site.index, case_index),
            seed=settings.seed,
            layout=settings.layout,
            phantom=settings.phantom,
        )
        for index, (site, case_index) in enumerate(numbered)
    ]


def _split(settings: DemoDataSettings, site_index: int, case_index: int) -> str:
    first_test = settings.case_counts[site_index] - settings.test_per_site
    if case_index >= first_test:
        return "test"
    return "val" if case_index >= first_test - settings.val_per_site else "train"


def _claim_folder(out: Path, settings: DemoDataSettings, sites: list[Site]) -> None:
    """Write the settings into a new folder, or check that an old one's are the same."""
    file = out / SETTINGS_FILE
    # by way of JSON, as the file's content went: tuples are lists there
    wanted = json.loads(
        json.dumps(
            {
                "synthetic": True,
                "generator_version": GENERATOR_VERSION,
                **asdict(settings),
                "site_properties": [asdict(site) for site in sites],
            }
        )
    )
    if file.exists():
        _check_same_settings(file, wanted)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(
            f"Demo data: expected {out} to be a new or empty folder, or demo data with {SETTINGS_FILE}; found other "
            "content. Choose another folder."
        )
    else:
        write_text(file, json.dumps(wanted, indent=1) + "\n")


def _check_same_settings(file: Path, wanted: dict) -> None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(
            f"Demo data: {file} cannot be read as JSON ({error}). Delete its folder or choose another one."
        ) from error
    differing = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
    if differing:
        raise ConfigurationError(
            f"Demo data: {file} says that the folder was made with other settings; different: "
            f"{', '.join(differing)}. Choose another folder, delete this one, or use its settings."
        )


def _make_and_write(out: Path, task: CaseTask) -> CaseRecord:
    phantom = make_case(task.seed, task.site, task.case_index, task.phantom)
    layout = LAYOUTS[task.layout]
    folder = layout.locate(task.case, phantom.record.grade)
    write_case(phantom, task.case, layout, task.phantom.spacing_mm, out / folder, out / f".{task.case}.partial")
    record = CaseRecord(
        case=task.case,
        site=task.site.name,
        split=task.split,
        folder=str(folder),
        site_index=task.site.index,
        case_index=task.case_index,
        patient=phantom.record,
    )
    write_record(out, record)
    return record


def _write_tables(out: Path, settings: DemoDataSettings, records: list[CaseRecord]) -> Path:
    if settings.layout == "brats2020":
        rows = [_map_names(record) for record in records]
        write_table(out / LAYOUTS[settings.layout].root / "name_mapping.csv", list(rows[0]), rows)
    table = out / TABLE_FILE
    write_table(table, CaseRecord.columns(), [record.to_row() for record in records])
    return table


def _map_names(record: CaseRecord) -> dict[str, object]:
    """Return the row of BraTS 2020's own table of names: grade, and the identifiers of earlier years."""
    brats2018 = identify_brats2018(record.site, record.case_index)
    return {
        "Grade": record.patient.grade,
        "BraTS_2017_subject_ID": brats2018.replace("Brats18", "Brats17"),
        "BraTS_2018_subject_ID": brats2018,
        "TCGA_TCIA_subject_ID": "NA",
        "BraTS_2019_subject_ID": brats2018.replace("Brats18", "BraTS19"),
        "BraTS_2020_subject_ID": record.case,
    }
