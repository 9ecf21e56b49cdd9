"""Sites plan together: the phases, and all sites of a federation on this machine in turn.

    site                                   coordinator
    terms                              ->  the labels mean the same everywhere
    first report                       ->  pool, request
    second report                      ->  pooled fingerprint, plans
    adopt: own copy of the plans, preprocessing

Every arrow carries one dataclass, and what it carries is printed. A runtime over a network calls the same methods of
`PlanningSite` at the sites and the same functions at the coordinator.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress

from nnunet_fedmepd.config.federation import Federation, PlanningTable, SiteTable
from nnunet_fedmepd.errors import ConfigurationError, DatasetError, FedMEPDError
from nnunet_fedmepd.maths.fingerprints import planning_request, pool, pooled_fingerprint
from nnunet_fedmepd.maths.planning_reports import (
    FirstReport,
    PlanningRequest,
    PlanningResolution,
    SecondReport,
    first_report,
    second_report,
)
from nnunet_fedmepd.modalities import ModalityVocabulary
from nnunet_fedmepd.nnunet_plugin.joint_planning import (
    SiteTerms,
    plans_for_site,
    pooled_plans,
    site_terms,
)
from nnunet_fedmepd.nnunet_plugin.modality_plan import SECTION
from nnunet_fedmepd.nnunet_plugin.planner import check_planning, kept_training_settings
from nnunet_fedmepd.nnunet_plugin.raw_dataset import RawDataset, open_raw_dataset
from nnunet_fedmepd.nnunet_plugin.registration import register
from nnunet_fedmepd.nnunet_plugin.site_cases import check_site_cases, site_cases
from nnunet_fedmepd.nnunet_plugin.site_preparation import Adopted, MapCases, adopt_plans
from nnunet_fedmepd.runtime.progress import counting_bar

Advance = Callable[[], None]
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class PlanningSite:
    """A site's part in planning together.

    Attributes:
        name: of the site.
        dataset: its data, which stay here.
        resolution: of its reports.
        n_threads: that read images.
    """

    name: str
    dataset: RawDataset
    resolution: PlanningResolution
    n_threads: int = 1

    def terms(self) -> SiteTerms:
        """Return what its labels mean and which modalities it owns."""
        return site_terms(self.dataset.description, self.dataset.modalities)

    def first_report(self, advance: Advance = lambda: None) -> FirstReport:
        """Analyse the cases, unless that has been done, and return what leaves the site in phase 1.

        Raises:
            DatasetError: a case cannot be read, or says something impossible.
        """
        return first_report(site_cases(self.dataset, self.n_threads, advance), self.resolution)

    def second_report(self, request: PlanningRequest) -> SecondReport:
        """Return what leaves the site in phase 2.

        Raises:
            DatasetError: the cases changed since phase 1.
        """
        return second_report(site_cases(self.dataset, self.n_threads), request, self.resolution)

    def adopt(
        self, plans: Mapping[str, Any], configuration: str, map_cases: MapCases = map, advance: Advance = lambda: None
    ) -> Adopted:
        """Take over the pooled plans: write the site's copy and preprocess its cases.

        Training settings in plans that the site has are kept, for they may be edited by hand.

        Raises:
            ConfigurationError: the plans have no such configuration, or those that the site has are damaged.
            DatasetError: a case cannot be preprocessed.
        """
        own = plans_for_site(plans, self.dataset.name, self.dataset.modalities, self.dataset.reader.__name__)
        if kept := kept_training_settings(self.dataset.name, own["plans_name"]):
            own[SECTION]["training"] = kept
        cases = site_cases(self.dataset, self.n_threads)
        return adopt_plans(self.dataset, cases, own, configuration, map_cases, advance)


def plan_together(federation: Federation, console: Console, n_processes: int = 1) -> bool:
    """Plan all sites of a federation and preprocess their data; what leaves each site is printed.

    Args:
        federation: whose datasets lie in nnUNet_raw.
        console: for reports and progress.
        n_processes: threads that read images, then processes that preprocess; 1 preprocesses in this process.

    Returns:
        Whether anything changed at any site.

    Raises:
        ConfigurationError: datasets are missing, incomplete or do not fit together; everything found is listed.
    """
    register()
    check_planning(federation.planning.planner, federation.planning.configuration)  # told before work starts
    sites = open_sites(federation, federation.vocabulary, n_processes)
    with counting_bar(console) as progress:
        plans = _planned(sites, federation.vocabulary, federation.planning, console, progress)
        adopted = _adopted(sites, plans, federation.planning.configuration, n_processes, progress)
    for name, result in adopted.items():
        console.print(f"site {name}: {_told(result)}", markup=False)
    changed = any(result.changed for result in adopted.values())
    if not changed:
        console.print("Nothing changed since the federation was planned.")
    return changed


def open_sites(federation: Federation, vocabulary: ModalityVocabulary, n_threads: int = 1) -> list[PlanningSite]:
    """Open and check the datasets of all sites.

    Raises:
        ConfigurationError: listing what is wrong at every site, and between sites.
    """
    sites, problems = _opened(federation, vocabulary, n_threads)
    check_terms({site.name: site.terms() for site in sites}, vocabulary, problems)
    return sites


def check_sites(federation: Federation, console: Console, n_threads: int = 1) -> None:
    """Check planner, configuration, and the datasets of all sites with their cases.

    Label maps are read; of images in NIfTI files only the headers are.

    Args:
        federation: whose datasets lie in nnUNet_raw.
        console: for progress.
        n_threads: that read.

    Raises:
        ConfigurationError: listing everything found.
    """
    register()
    planning, vocabulary = federation.planning, federation.vocabulary
    sites, problems = _opened(federation, vocabulary, n_threads)
    with counting_bar(console) as progress, _counting(progress, "checking cases", sites) as advance:
        _, unusable = _asked(
            {site.name: site.dataset for site in sites}, lambda data: check_site_cases(data, n_threads, advance)
        )
    try:
        check_planning(planning.planner, planning.configuration)
    except ConfigurationError as error:
        unusable.append(str(error))
    check_terms({site.name: site.terms() for site in sites}, vocabulary, [*problems, *unusable])


def _opened(
    federation: Federation, vocabulary: ModalityVocabulary, n_threads: int
) -> tuple[list[PlanningSite], list[str]]:
    """Return the sites whose datasets can be opened, and what is wrong with the others."""
    resolution = planning_resolution(federation.planning)
    tables = {table.name: table for table in federation.site}
    datasets, problems = _asked(tables, lambda table: open_site_dataset(table, vocabulary))
    return [PlanningSite(name, dataset, resolution, n_threads) for name, dataset in datasets.items()], problems


def check_terms(terms: Mapping[str, SiteTerms], vocabulary: ModalityVocabulary, problems: Sequence[str] = ()) -> None:
    """Check that all sites' labels mean the same, and that every modality has an owner.

    Args:
        terms: of every site that could give them.
        vocabulary: the federation's modalities.
        problems: found before.

    Raises:
        ConfigurationError: with everything found.
    """
    found = [*problems, *_differing_labels(terms)]
    raise_if(found or _unowned_modalities(terms, vocabulary))


def planning_resolution(planning: PlanningTable) -> PlanningResolution:
    """Return how finely the sites report."""
    return PlanningResolution(planning.steps_per_mm, planning.size_steps, planning.intensity_bins)


def plans_from_reports(
    first: Mapping[str, FirstReport],
    second: Mapping[str, SecondReport],
    terms: SiteTerms,
    vocabulary: ModalityVocabulary,
    planning: PlanningTable,
) -> dict[str, Any]:
    """Return the coordinator's plans for a site with every modality.

    Raises:
        DatasetError: the reports do not belong together.
    """
    pooled = pool(list(first.values()))
    fingerprint = pooled_fingerprint(pooled, planning_request(pooled), list(second.values()), vocabulary.canonical)
    return pooled_plans(fingerprint, pooled.n_cases, terms, vocabulary, planning.planner, planning.gpu_memory_gb)


def _planned(
    sites: list[PlanningSite],
    vocabulary: ModalityVocabulary,
    planning: PlanningTable,
    console: Console,
    progress: Progress,
) -> dict[str, Any]:
    by_name = {site.name: site for site in sites}
    terms = {site.name: site.terms() for site in sites}
    with _counting(progress, "analysing cases", sites) as advance:
        first = _at_all_sites(by_name, lambda site: site.first_report(advance))
    request = planning_request(pool(list(first.values())))
    second = _at_all_sites(by_name, lambda site: site.second_report(request))
    for name in by_name:
        print_leaving(console, name, "before planning", terms[name].describe())
        print_leaving(console, name, "in phase 1", first[name].describe())
        print_leaving(console, name, "in phase 2", second[name].describe())
    return plans_from_reports(first, second, next(iter(terms.values())), vocabulary, planning)


def _adopted(
    sites: list[PlanningSite], plans: Mapping[str, Any], configuration: str, n_processes: int, progress: Progress
) -> dict[str, Adopted]:
    with case_workers(n_processes) as map_cases, _counting(progress, "preprocessing cases", sites) as advance:
        return _at_all_sites(
            {site.name: site for site in sites}, lambda site: site.adopt(plans, configuration, map_cases, advance)
        )


def open_site_dataset(table: SiteTable, vocabulary: ModalityVocabulary) -> RawDataset:
    """Open a site's dataset, and check it against its table in the federation file.

    Raises:
        ConfigurationError: no such dataset, incomplete, or other modalities than stated.
        DatasetError: files are missing or cannot be read.
    """
    dataset = open_raw_dataset(table.dataset, vocabulary)
    stated = None if table.modalities is None else vocabulary.resolve_all(table.modalities, table.name)
    if stated not in (None, dataset.modalities):
        raise ConfigurationError(
            f"the federation file states the modalities {list(stated)}, but the channels of {dataset.name} "
            f"are {list(dataset.modalities)}, in this order. Correct the file, or leave `modalities` out."
        )
    if table.lead and (missing := [m for m in vocabulary.canonical if m not in dataset.modalities]):
        raise ConfigurationError(f"a lead owns every modality, but {dataset.name} has no {', '.join(missing)}.")
    return dataset


def _differing_labels(terms: Mapping[str, SiteTerms]) -> list[str]:
    first = next(iter(terms), "")
    return [
        f"site {name!r} has other labels than site {first!r}: expected {'; '.join(terms[first].describe_labels())}; "
        f"found {'; '.join(own.describe_labels())}. Make them the same in every dataset.json, in the same order."
        for name, own in terms.items()
        if own.describe_labels() != terms[first].describe_labels()
    ]


def _unowned_modalities(terms: Mapping[str, SiteTerms], vocabulary: ModalityVocabulary) -> list[str]:
    owned = {modality for own in terms.values() for modality in own.modalities}
    return [
        f"no site has modality {modality!r}; remove it from the federation's modalities, or add a site that has it."
        for modality in vocabulary.canonical
        if modality not in owned
    ]


def _at_all_sites(sites: Mapping[str, Any], ask: Callable[[Any], _Answer]) -> dict[str, _Answer]:
    """Return every site's answer; what went wrong at any of them is raised together."""
    answers, problems = _asked(sites, ask)
    raise_if(problems)
    return answers


def _asked(sites: Mapping[str, Any], ask: Callable[[Any], _Answer]) -> tuple[dict[str, _Answer], list[str]]:
    """Return the answers of the sites that could give one, and what went wrong at the others."""
    answers, problems = {}, []
    for name, site in sites.items():
        try:
            answers[name] = ask(site)
        except FedMEPDError as error:
            problems.append(f"site {name!r}: {error}")
    return answers, problems


def raise_if(problems: Sequence[str]) -> None:
    """Raise a ConfigurationError of all problems, if there are any."""
    if problems:
        listed = "\n".join(problems).replace("\n", "\n  ")
        raise ConfigurationError(f"The federation cannot be planned:\n  {listed}")


def print_leaving(console: Console, name: str, when: str, lines: Sequence[str]) -> None:
    """Print what leaves a site."""
    console.print(f"what leaves site {name} {when}:", markup=False)
    for line in lines:
        console.print(f"  {line}", markup=False)


def _told(result: Adopted) -> str:
    plans = "new plans" if result.plans_written else "plans unchanged"
    return f"{plans}, {result.n_preprocessed} cases preprocessed" if result.changed else "unchanged"


@contextmanager
def _counting(progress: Progress, description: str, sites: list[PlanningSite]) -> Iterator[Advance]:
    """Show a bar over the cases of all sites; cases that need no work are counted at the end."""
    n_cases = sum(len(site.dataset.cases) for site in sites)
    task = progress.add_task(description, total=n_cases)
    yield lambda: progress.advance(task)
    progress.update(task, completed=n_cases)


@contextmanager
def case_workers(n_processes: int) -> Iterator[MapCases]:
    """Give a `map` over cases that works in this process, or in several, started at the first case for all sites."""
    if n_processes <= 1:
        yield map
        return
    executor = ProcessPoolExecutor(n_processes, multiprocessing.get_context("spawn"))
    try:
        yield executor.map
    except BrokenProcessPool:
        raise DatasetError(
            "A process that preprocessed cases was ended from outside",
            expected=f"{n_processes} processes",
            remedy="the memory was probably too small; use fewer processes (-np 1)",
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)
