from __future__ import annotations

import numpy as np
import pytest

from nnunet_fedmepd.demo_data.layouts import LAYOUTS, identify_brats2018


@pytest.mark.parametrize(
    ("site", "case_index", "expected"),
    [
        ("TCIA01", 0, "Brats18_TCIA01_1_1"),
        ("2013", 9, "Brats18_2013_10_1"),
        ("CBICA", 0, "Brats18_CBICA_AAA_1"),
        ("TMC", 27, "Brats18_TMC_ABB_1"),
        ("CBICA", 675, "Brats18_CBICA_AZZ_1"),
    ],
)
def test_brats_2018_identifiers_name_the_institution(site: str, case_index: int, expected: str) -> None:
    assert identify_brats2018(site, case_index) == expected


@pytest.mark.parametrize(
    ("layout", "folder", "t1ce", "labels"),
    [
        (
            "brats2018",
            "MICCAI_BraTS_2018_Data_Training/LGG/Brats18_TCIA01_3_1",
            "Brats18_TCIA01_3_1_t1ce.nii.gz",
            "Brats18_TCIA01_3_1_seg.nii.gz",
        ),
        (
            "brats2020",
            "MICCAI_BraTS2020_TrainingData/BraTS20_Training_008",
            "BraTS20_Training_008_t1ce.nii.gz",
            "BraTS20_Training_008_seg.nii.gz",
        ),
        (
            "brats2023",
            "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/BraTS-GLI-00007-000",
            "BraTS-GLI-00007-000-t1c.nii.gz",
            "BraTS-GLI-00007-000-seg.nii.gz",
        ),
    ],
)
def test_files_lie_and_are_named_as_the_challenge_has_them(layout: str, folder: str, t1ce: str, labels: str) -> None:
    year = LAYOUTS[layout]
    case = year.identify("TCIA01", 2, 7)
    assert str(year.locate(case, "LGG")) == folder
    assert year.name_image(case, "T1ce") == t1ce
    assert year.name_labels(case) == labels
    assert len(set(year.name_files(case))) == 5


@pytest.mark.parametrize(("layout", "enhancing"), [("brats2018", 4), ("brats2020", 4), ("brats2023", 3)])
def test_enhancing_tumour_has_the_challenges_value(layout: str, enhancing: int) -> None:
    labels = np.array([[[0, 1, 2, 3]]], np.uint8)
    encoded = LAYOUTS[layout].encode_labels(labels)
    assert encoded.tolist() == [[[0, 1, 2, enhancing]]]
    assert encoded.dtype == np.uint8
