"""What must fit together in a federation file, beyond the types of its values.

The checks read the file as it was parsed, and pass over what is missing or of a wrong type: so they find what they
can find even where other mistakes are reported as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from nnunet_fedmepd.config.variants import fill_in_variant
from nnunet_fedmepd.errors import ModalityError
from nnunet_fedmepd.modalities import BRATS_VOCABULARY, ModalityVocabulary

_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_DATASET = re.compile(r"(?:Dataset(\d{3,})_.+)|(\d+)")
_DEVICE = re.compile(r"cpu|mps|cuda(:\d+)?")
FOLDS = range(5)


def federation_vocabulary(modalities: Sequence[str], aliases: Mapping[str, str]) -> ModalityVocabulary:
    """Return the canonical modalities with their aliases; BraTS's aliases apply to modalities named as there.

    Raises:
        ModalityError: a name is malformed or doubled, or an alias is ambiguous or points nowhere.
    """
    default = {alias: name for alias, name in BRATS_VOCABULARY.aliases.items() if name in modalities}
    return ModalityVocabulary(tuple(modalities), {**default, **aliases})


def cross_mistakes(file: Mapping[str, Any]) -> list[str]:
    """Return every mistake, as `place: what is wrong`."""
    return [
        *_name_mistakes(file),
        *_modality_mistakes(file),
        *_site_mistakes(file),
        *_lead_mistakes(file),
        *_privacy_mistakes(file),
        *_run_mistakes(file),
    ]


def _name_mistakes(file: Mapping[str, Any]) -> Iterator[str]:
    names = {"name": file.get("name"), **{f"site[{i}].name": site.get("name") for i, site in _sites(file)}}
    for place, name in names.items():
        if isinstance(name, str) and not _FOLDER_NAME.fullmatch(name):
            yield f"{place}: {name!r} cannot be a folder's name; expected letters, digits, '_', '-' and '.'"


def _modality_mistakes(file: Mapping[str, Any]) -> Iterator[str]:
    canonical = file.get("modalities")
    aliases = {alias: target for alias, target in _table(file, "aliases").items() if isinstance(target, str)}
    if not _is_list(canonical, str):
        return
    try:
        vocabulary = federation_vocabulary(canonical, {})
    except ModalityError as error:
        yield f"modalities: {error}"
        return
    for alias, target in aliases.items():
        try:
            vocabulary = federation_vocabulary(canonical, {**vocabulary.aliases, alias: target})
        except ModalityError as error:
            yield f"aliases.{alias}: {error}"
    for i, site in _sites(file):
        if _is_list(site.get("modalities"), str):
            yield from (f"site[{i}].modalities: {problem}" for problem in _owned_mistakes(site, vocabulary))


def _owned_mistakes(site: Mapping[str, Any], vocabulary: ModalityVocabulary) -> Iterator[str]:
    canonical, owned = list(vocabulary.canonical), dict[str, str]()
    if not site["modalities"]:
        yield f"empty; expected at least one of {canonical}"
    for name in site["modalities"]:
        if not vocabulary.knows(name):
            yield f"unknown modality {name!r}; expected one of {canonical}, or another name for one under [aliases]"
            continue
        modality = vocabulary.resolve(name)
        if modality in owned:
            yield f"{owned[modality]!r} and {name!r} both mean {modality!r}; expected every modality at most once"
        owned.setdefault(modality, name)
    if site.get("lead") is True and (missing := [modality for modality in canonical if modality not in owned]):
        yield f"a lead owns every modality; {site.get('name')!r} lacks {', '.join(missing)}"


def _site_mistakes(file: Mapping[str, Any]) -> Iterator[str]:
    if file.get("site") in ([], ()):
        yield "site: there is no site; expected at least one table [[site]]"
    for i, site in _sites(file):
        dataset = site.get("dataset")
        if type(dataset) in (int, str) and not _dataset_number(dataset):
            yield (
                f"site[{i}].dataset: {dataset!r} is no nnU-Net dataset; expected its number or its full name, such as "
                "501 or 'Dataset501_Name'"
            )
        absent, rounds = site.get("absent_rounds"), file.get("rounds")
        if isinstance(rounds, int) and _is_list(absent, int) and (out := [r for r in absent if not 1 <= r <= rounds]):
            yield f"site[{i}].absent_rounds: {out} are no rounds; expected 1 to {rounds}"
    # Folders of names that differ in case only are one folder on some machines.
    yield from _doubled(file, "name", "folder", lambda name: str(name).casefold())
    yield from _doubled(file, "dataset", "dataset", _dataset_number)


def _doubled(file: Mapping[str, Any], key: str, what: str, identity: Callable[[Any], Any]) -> Iterator[str]:
    first: dict[Any, tuple[int, Any]] = {}
    for i, site in _sites(file):
        value = site.get(key)
        if type(value) in (int, str) and (same := identity(value)):
            j, other = first.setdefault(same, (i, value))
            if j != i:
                yield f"site[{i}].{key}: {value!r} is the same {what} as {other!r} of site[{j}]; expected another"


def _dataset_number(dataset: Any) -> int:
    """Return the number of a dataset, 0 where it is none."""
    match = _DATASET.fullmatch(str(dataset))
    return int(match[1] or match[2]) if match else 0


def _lead_mistakes(file: Mapping[str, Any]) -> Iterator[str]:
    method = fill_in_variant(_table(file, "method"))
    role, wanted = method.get("lead_role", "lead"), method.get("anchors", True) and method.get("exchange", True)
    if not wanted or not _sites(file):
        return
    if role != "lead":
        yield f"method.anchors: anchors come from leads, but lead_role is {role!r}; set anchors = false"
    elif not any(site.get("lead") for _, site in _sites(file)):
        remedy = "set lead = true at a site with every modality, or anchors = false"
        yield f"method.anchors: anchors come from a lead, but no site leads; {remedy}"


def _privacy_mistakes(file: Mapping[str, Any]) -> Iterator[str]:
    method = fill_in_variant(_table(file, "method"))
    privacy = _table(method, "privacy")
    anchors = method.get("anchors", True) and method.get("exchange", True) and method.get("lead_role", "lead") == "lead"
    leads = any(site.get("lead") for _, site in _sites(file))
    if privacy and privacy.get("protect_leads", True) is True and anchors and leads:
        yield (
            "method.anchors: anchors are means of a lead's features, which cannot be protected; set anchors = false, "
            "or protect_leads = false under [method.privacy] where leads need no protection"
        )


def _run_mistakes(file: Mapping[str, Any]) -> Iterator[str]:
    run, n_sites = _table(file, "run"), len(_sites(file))
    devices, workers = run.get("devices", []), run.get("workers", 1)
    if _is_list(devices, str):
        for device in devices:
            if not _DEVICE.fullmatch(device):
                yield f"run.devices: {device!r} is no device; expected cpu, mps, cuda or cuda:NUMBER"
        if isinstance(workers, int) and share_a_gpu(devices, workers) and not run.get("share_devices", False):
            yield (
                f"run.workers: {workers} workers would share GPUs of the devices {', '.join(devices)}; name a GPU for "
                "each, or set share_devices = true to allow it"
            )
    minimum = run.get("minimum_sites", 1)
    if isinstance(minimum, int) and n_sites and minimum > n_sites:
        yield f"run.minimum_sites: {minimum} updates cannot come from {n_sites} sites"
    fold = run.get("fold", "all")
    if type(fold) is int and fold not in FOLDS:
        yield f"run.fold: there is no fold {fold}; expected 'all' or 0 to {FOLDS[-1]}"


def share_a_gpu(devices: Sequence[str], workers: int) -> bool:
    """Return whether two workers get the same GPU; without devices none is known yet."""
    gpus = ["cuda:0" if device == "cuda" else device for device in devices[:workers] if device != "cpu"]
    return len(set(gpus)) < len(gpus) or (bool(gpus) and workers > len(devices))


def _sites(file: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    sites = file.get("site")
    return [(i, site) for i, site in enumerate(sites) if isinstance(site, Mapping)] if _is_list(sites) else []


def _table(file: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = file.get(key)
    return table if isinstance(table, Mapping) else {}


def _is_list(values: Any, kind: type = object) -> TypeGuard[Sequence[Any]]:
    return isinstance(values, (list, tuple)) and all(isinstance(value, kind) for value in values)
