"""Label maps as nnU-Net's readers give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

from nnunet_fedmepd.nnunet_plugin.label_files import LabelFiles


def test_a_photograph_is_a_millimetre_thick(tmp_path: Path) -> None:
    file = tmp_path / "label.png"
    NaturalImage2DIO().write_seg(np.ones((1, 4, 5), np.uint8), str(file), {})
    label_map = LabelFiles({"image_reader_writer": "NaturalImage2DIO"}).read(file)
    assert label_map.labels.shape == (1, 4, 5)
    assert label_map.spacing_mm == (1, 1, 1)


@pytest.mark.parametrize(
    ("voxels", "steps", "expected"),
    [((4, 5), (0.5, 0.7), (1, 0.7, 0.5)), ((1, 4, 5), (0.5, 0.7, 6.5), (6.5, 0.7, 0.5))],
)
def test_a_slice_is_as_thick_as_its_file_says(tmp_path: Path, voxels, steps, expected) -> None:
    image = SimpleITK.GetImageFromArray(np.ones(voxels, np.uint8))
    image.SetSpacing(steps)
    SimpleITK.WriteImage(image, str(file := tmp_path / "label.nrrd"))
    label_map = LabelFiles({"image_reader_writer": "SimpleITKIO"}).read(file)
    assert label_map.spacing_mm == pytest.approx(expected)
