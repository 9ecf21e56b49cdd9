"""Where modalities are written down: dataset.json and the `fedmepd` section of a plans file.

dataset.json may hold an object `fedmepd` with `canonical_modalities` (all modalities of the federation, in order) and
`modality_aliases` (other name -> canonical name). Without it the canonical modalities are those of BraTS where all
channel names are known there, else the dataset's own channels. `fedmepd convert` also writes there where the cases come
from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nnunet_fedmepd.config.settings_tables import suggestion
from nnunet_fedmepd.errors import ConfigurationError, ModalityError
from nnunet_fedmepd.modalities import BRATS_VOCABULARY, ModalityVocabulary

SECTION = "fedmepd"
_KEYS = ("canonical_modalities", "modality_aliases", "site", "absent_scans", "converted_from")


def channel_names(dataset_json: Mapping[str, Any], source: str = "dataset.json") -> tuple[str, ...]:
    """Return the channel names of a dataset in the order of its channels.

    Raises:
        ConfigurationError: dataset.json has none, or not by number; the message names `source`.
    """
    names = dataset_json.get("channel_names", dataset_json.get("modality"))
    expected = 'expected numbers with names, such as {"0": "T1ce", "1": "FLAIR"}'
    if not names:
        raise ConfigurationError(f"{source} has no `channel_names`; {expected}. Add it.")
    if not isinstance(names, Mapping) or not all(str(number).isdecimal() for number in names):
        raise ConfigurationError(f"{source} has the `channel_names` {json.dumps(names)}; {expected}. Correct it.")
    return tuple(str(names[key]) for key in sorted(names, key=int))


def federation_section(dataset_json: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return what dataset.json says in its object `fedmepd`; nothing where it has none.

    Raises:
        ConfigurationError: a key is unknown, or a value of another type; the message names `source`.
    """
    section = dataset_json.get(SECTION, {})
    if not isinstance(section, Mapping):
        raise ConfigurationError(f"`{SECTION}` in {source} is {json.dumps(section)}; expected an object. Correct it.")
    if unknown := [f"{key!r}{suggestion(key, _KEYS)}" for key in section if key not in _KEYS]:
        raise ConfigurationError(
            f"`{SECTION}` in {source} has unknown keys: {', '.join(unknown)}. Expected some of {', '.join(_KEYS)}: "
            "rename or remove them."
        )
    canonical, aliases = section.get("canonical_modalities", []), section.get("modality_aliases", {})
    if not isinstance(canonical, list) or not isinstance(aliases, Mapping):
        raise ConfigurationError(
            f"`{SECTION}` in {source}: expected a list of names as canonical_modalities and an object, other name -> "
            f"canonical name, as modality_aliases; found {json.dumps(canonical)} and {json.dumps(aliases)}. Correct it."
        )
    return section


def vocabulary_of(dataset_json: Mapping[str, Any], source: str) -> ModalityVocabulary:
    """Return the canonical modalities and aliases that apply to a dataset.

    Raises:
        ConfigurationError: the channels or the section in dataset.json are not as they should be; the message names
            `source`.
        ModalityError: the section is inconsistent.
    """
    section, names = federation_section(dataset_json, source), channel_names(dataset_json, source)
    if "canonical_modalities" in section:
        canonical = tuple(section["canonical_modalities"])
        default = {a: m for a, m in BRATS_VOCABULARY.aliases.items() if m in canonical}
        return ModalityVocabulary(canonical, {**default, **section.get("modality_aliases", {})})
    if all(BRATS_VOCABULARY.knows(name) for name in names):
        return BRATS_VOCABULARY
    return ModalityVocabulary(names, section.get("modality_aliases", {}))


def owned_modalities(dataset_json: Mapping[str, Any], vocabulary: ModalityVocabulary, source: str) -> tuple[str, ...]:
    """Return the canonical modalities of a dataset's channels, in the order of its channels.

    Raises:
        ConfigurationError: dataset.json does not name its channels; the message names `source`.
        ModalityError: a channel is unknown or doubled; the message names `source`.
    """
    return vocabulary.resolve_all(channel_names(dataset_json, source), source)


def planned_vocabulary(plans: Mapping[str, Any]) -> ModalityVocabulary:
    """Return the canonical modalities and aliases that a plans file was made for.

    Raises:
        ConfigurationError: the plans were not made by FedMEPDPlanner.
    """
    section = plans.get(SECTION)
    if not section or "canonical_modalities" not in section:
        raise ConfigurationError(
            f"Plans {plans.get('plans_name', '?')!r} of {plans.get('dataset_name', '?')} have no `{SECTION}` section "
            "with `canonical_modalities`: they were not made by FedMEPDPlanner. Run "
            "`nnUNetv2_plan_and_preprocess -d ID -pl FedMEPDPlanner` and pass `-p FedMEPDPlans`."
        )
    return ModalityVocabulary(tuple(section["canonical_modalities"]), section.get("modality_aliases", {}))


def check_channels(
    plans: Mapping[str, Any], planned: tuple[str, ...], dataset_json: Mapping[str, Any], source: str
) -> None:
    """Check that a dataset's channels are the modalities of the plans, in the same order.

    Args:
        plans: plans made by FedMEPDPlanner.
        planned: modalities of the configuration in use (`arch_kwargs["modalities"]`).
        dataset_json: the dataset's description.
        source: what to call the dataset in the message.

    Raises:
        ModalityError: other modalities, or another order.
    """
    found = owned_modalities(dataset_json, planned_vocabulary(plans), source)
    if found != tuple(planned):
        problem = "in another order" if set(found) == set(planned) else "others"
        raise ModalityError(
            f"The channels of {source} are {problem}: expected {list(planned)} (plans {plans.get('plans_name')!r}), "
            f"found {list(found)}. Rename or reorder the channels, or plan this dataset by itself."
        )
