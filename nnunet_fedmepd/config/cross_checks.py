"""What must fit together in a federation file, beyond the types of its values.

The checks read the file as it was parsed, and pass over what is missing or of a wrong type: so they find what they
can find even where other mistakes are reported as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nnunet_fedmepd.errors import ModalityError
from nnunet_fedmepd.modalities import BRATS_VOCABULARY, ModalityVocabulary

# A site's name is a folder's name.
_SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_RUN_NAME = _SITE_NAME
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
        *_run_mistakes(file),
    ]


def _name_mistakes(file: Mapping[str, Any]) -> Iterator[str]:
    name = file.get("name")
    if isinstance(name, str) and not _RUN_NAME.fullmatch(name):
        yield f"name: {name!r} cannot be a folder's name; expected letters, digits, '_', '-' and '.'"
    for i, site in enumerate(_sites(file)):
        own = site.get("name")
        if isinstance(own, str) and not _SITE_NAME.fullmatch(own):
            yield f"site[{i}].name: {own!r} cannot be a folder's name; expected letters, digits, '_', '-' and '.'"


def _modality_mistakes(file: Mapping[str, Any]) -> Iterator[str]:
    try:
        vocabulary = federation_vocabulary(_list(file, "modalities"), _table(file, "aliases"))
    except ModalityError as error:
        yield f"modalities: {error}"
        return
    for i, site in enumerate(_sites(file)):
        own = site.get("modalities")
        if not isinstance(own, (list, tuple)):
            continue
        place = f"site[{i}].modalities"
        if not own:
            yield f"{place}: empty; expected at least one of {list(vocabulary.canonical)}"
        try:
            resolved = vocabulary.resolve_all(map(str, own), f"site {site.get('name')!r}")
        except ModalityError as error:
            yield f"{place}: {error}"
            continue
        if site.get("lead") and set(resolved) != set(vocabulary.canonical):
            missing = [modality for modality in vocabulary.canonical if modality not in resolved]
            yield f"{place}: a lead owns every modality; {site.get('name')!r} lacks {', '.join(missing)}"


def _site_mistakes(file: Mapping[str, Any]) -> Iterator[str]:
    sites, rounds = _sites(file), file.get("rounds")
    if "site" in file and not sites:
        yield "site: there is no site; expected at least one table [[site]]"
    for key in ("name", "dataset"):
        values = [site.get(key) for site in sites]
        for i, value in enumerate(values):
            if value is not None and value in values[:i]:
                yield f"site[{i}].{key}: {value!r} is that of site[{values.index(value)}] as well; expected another"
    for i, site in enumerate(sites):
        absent = site.get("absent_rounds", ())
        if isinstance(rounds, int) and isinstance(absent, (list, tuple)):
            outside = [r for r in absent if isinstance(r, int) and not 1 <= r <= rounds]
            if outside:
                yield f"site[{i}].absent_rounds: {outside} are no rounds; expected 1 to {rounds}"


def _lead_mistakes(file: Mapping[str, Any]) -> Iterator[str]:
    method = _table(file, "method")
    role, exchanges = method.get("lead_role", "lead"), method.get("exchange", True)
    preset = {"fedavg": False, "local": False}.get(str(method.get("variant")), True)
    anchors = method.get("anchors", preset)
    if not anchors or not exchanges or not _sites(file):
        return
    if role != "lead" and "lead_role" in method:
        yield f"method.anchors: anchors come from leads, but lead_role is {role!r}; set anchors = false"
    elif not any(site.get("lead") for site in _sites(file)):
        remedy = "set lead = true at a site with every modality, or anchors = false"
        yield f"method.anchors: anchors come from a lead, but no site leads; {remedy}"


def _run_mistakes(file: Mapping[str, Any]) -> Iterator[str]:
    run, n_sites = _table(file, "run"), len(_sites(file))
    devices, workers = [str(device) for device in _list(run, "devices")], run.get("workers", 1)
    for device in devices:
        if not _DEVICE.fullmatch(device):
            yield f"run.devices: {device!r} is no device; expected cpu, mps, cuda or cuda:NUMBER"
    shares = run.get("share_devices", False)
    gpus = [device for device in devices if device != "cpu"]
    if isinstance(workers, int) and gpus and workers > len(devices) and not shares:
        yield f"run.workers: {workers} workers would share {len(devices)} devices; set share_devices = true to allow it"
    minimum = run.get("minimum_sites", 1)
    if isinstance(minimum, int) and n_sites and minimum > n_sites:
        yield f"run.minimum_sites: {minimum} updates cannot come from {n_sites} sites"
    fold = run.get("fold", "all")
    if isinstance(fold, int) and fold not in FOLDS:
        yield f"run.fold: there is no fold {fold}; expected 'all' or 0 to {FOLDS[-1]}"


def _sites(file: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    sites = file.get("site", ())
    return [site for site in sites if isinstance(site, Mapping)] if isinstance(sites, (list, tuple)) else []


def _table(file: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = file.get(key)
    return table if isinstance(table, Mapping) else {}


def _list(file: Mapping[str, Any], key: str) -> list[Any]:
    values = file.get(key)
    return list(values) if isinstance(values, (list, tuple)) else []
