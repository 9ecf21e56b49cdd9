"""Names of modalities: many spellings, one meaning, and no silent guess."""

import pytest

from nnunet_fedmepd.errors import DatasetError, FedMEPDError, ModalityError
from nnunet_fedmepd.modalities import (
    BRATS_LABELS,
    BRATS_REGIONS,
    BRATS_REGIONS_CLASS_ORDER,
    BRATS_VOCABULARY,
    ModalityVocabulary,
)


@pytest.mark.parametrize(
    ("name", "modality"),
    [("T1", "T1"), ("t1ce", "T1ce"), ("T1-CE", "T1ce"), ("t1 gd", "T1ce"), ("t2f", "FLAIR"), ("T2_FLAIR", "FLAIR")],
)
def test_case_spaces_and_dashes_do_not_matter_and_aliases_are_known(name, modality):
    assert BRATS_VOCABULARY.resolve(name) == modality


def test_an_unknown_name_is_refused_with_the_names_that_are_known():
    with pytest.raises(ModalityError, match=r"'PET' in site B.*'T1', 'T1ce', 'T2', 'FLAIR'"):
        BRATS_VOCABULARY.resolve("PET", "site B")
    assert not BRATS_VOCABULARY.knows("PET")


def test_two_channels_of_one_modality_are_refused():
    with pytest.raises(ModalityError, match=r"'t1c' and 'T1Gd' in dataset.json both mean 'T1ce'"):
        BRATS_VOCABULARY.resolve_all(["t1c", "T2", "T1Gd"], "dataset.json")


@pytest.mark.parametrize(
    ("canonical", "aliases", "message"),
    [
        ([], {}, "at least one canonical modality"),
        (["T 1"], {}, "'T 1' cannot be used"),
        (["T1", "t-1"], {}, "'T1' and 't-1' are the same name"),
        (["CT"], {"kt": "KT"}, "Alias 'kt' points to 'KT'"),
        (["CT", "PET"], {"ct": "PET"}, "Alias 'ct' means both 'CT' and 'PET'"),
    ],
)
def test_an_inconsistent_vocabulary_is_refused(canonical, aliases, message):
    with pytest.raises(ModalityError, match=message):
        ModalityVocabulary(canonical, aliases)


def test_regions_nest_and_paint_largest_first():
    whole, core, enhancing = (set(labels) for labels in BRATS_REGIONS.values())
    assert enhancing < core < whole == set(BRATS_LABELS.values()) - {0}
    painted = {}
    for labels, label in zip(BRATS_REGIONS.values(), BRATS_REGIONS_CLASS_ORDER, strict=True):
        painted.update(dict.fromkeys(labels, label))
    assert painted == {1: 1, 2: 2, 3: 3}


def test_a_dataset_error_says_where_what_and_what_to_do():
    error = DatasetError(
        "A scan is truncated", case="c1", file="a.nii.gz", expected=10, found=0, remedy="copy it again"
    )
    assert isinstance(error, FedMEPDError)
    assert str(error).splitlines() == [
        "A scan is truncated",
        "  case: c1",
        "  file: a.nii.gz",
        "  expected: 10",
        "  found: 0",
        "  what to do: copy it again",
    ]
