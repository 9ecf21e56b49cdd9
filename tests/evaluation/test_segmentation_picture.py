"""The picture shows what was predicted, or says why it cannot."""

import numpy as np
import pytest
import SimpleITK
from matplotlib.image import imread

from nnunet_fedmepd.errors import DatasetError
from nnunet_fedmepd.evaluation.segmentation_picture import PredictedCase, draw_segmentations


def write(file, voxels):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels.astype(np.int16)), str(file))
    return file


def predicted_case(folder, prediction_label=3, prediction_shape=(6, 8, 8)):
    labels = np.zeros((6, 8, 8))
    labels[2:4, 2:6, 2:6] = 3
    prediction = np.zeros(prediction_shape)
    prediction[2:4, 2:6, 2:6] = prediction_label
    return PredictedCase(
        "case",
        write(folder / "image.nii.gz", np.full((6, 8, 8), 50) + np.arange(8)),
        write(folder / "reference.nii.gz", labels),
        {"model": write(folder / "prediction.nii.gz", prediction)},
    )


def yellow(picture):
    """Count pixels in the colour of enhancing tumour."""
    red, green, blue = (picture[..., i] for i in range(3))
    return int(((red > 0.5) & (green > 0.4) & (blue < 0.45)).sum())


def test_the_prediction_is_drawn_over_the_image_beside_the_reference(tmp_path):
    right = imread(draw_segmentations([predicted_case(tmp_path)], tmp_path / "sub" / "right.png"))
    wrong = imread(draw_segmentations([predicted_case(tmp_path, prediction_label=0)], tmp_path / "wrong.png"))
    assert yellow(right) > 1.5 * yellow(wrong) > 0
    assert not list(tmp_path.glob("**/.*.partial"))


def test_a_missing_file_and_a_wrong_shape_are_errors(tmp_path):
    with pytest.raises(DatasetError, match=r"differ in shape[\s\S]*case: case"):
        draw_segmentations([predicted_case(tmp_path, prediction_shape=(6, 8, 9))], tmp_path / "a.png")
    case = predicted_case(tmp_path)
    case.predictions["model"].unlink()
    with pytest.raises(DatasetError, match="A file to draw is missing"):
        draw_segmentations([case], tmp_path / "a.png")
