import numpy as np
import pytest
from mgre.errors import DataError
from mgre.inference.preparation import boxes_in_image, crop, prepare, to_image
from mgre.record import ModelRecord
from PIL import Image


def test_boxes_are_rounded_outwards_and_cut_at_the_border():
    frame = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    inside, over = crop(frame, [[1.2, 0.5, 2.1, 3.0], [-3, 2, 2, 99]])
    np.testing.assert_array_equal(np.asarray(inside), frame[0:3, 1:3])
    np.testing.assert_array_equal(np.asarray(over), frame[2:4, 0:2])
    assert crop(frame, np.empty((0, 4))) == []


@pytest.mark.parametrize("box", [(3, 1, 3, 2), (2, 1, 1, 2), (6, 0, 9, 4), (0, -3, 2, 0), (0, 0, float("nan"), 2)])
def test_a_box_without_pixels_is_named(box):
    with pytest.raises(DataError, match=r"box 1.*x_min y_min x_max y_max") as caught:
        crop(np.zeros((4, 6, 3), np.uint8), [(0, 0, 1, 1), box])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("array", [np.zeros((4, 6, 3)), np.zeros((4, 6), np.uint8), np.zeros((0, 6, 3), np.uint8)])
def test_an_array_of_another_kind_is_refused(array):
    with pytest.raises(DataError, match=r"allowed: \(H, W, 3\) of uint8, RGB"):
        to_image(array)


def test_a_grey_image_becomes_rgb():
    assert to_image(Image.new("L", (3, 4), 7)).getpixel((0, 0)) == (7, 7, 7)


def test_boxes_of_the_centre_lie_on_the_same_pixels_of_the_image():
    image = np.zeros((21, 12, 3), np.uint8)
    image[8:12, 4:9] = 255
    for cut in (None, (10, 7)):
        record = ModelRecord("MGRe", (21, 12), cut, (0.0,) * 3, (1.0,) * 3, "")
        pixels = prepare(image, record)
        rows, columns = (np.flatnonzero(pixels[0].any(axis=axis)) for axis in (1, 0))
        height, width = pixels.shape[1:]
        edges = [columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height]
        found = boxes_in_image(np.array([edges], dtype=np.float32), record)
        np.testing.assert_allclose(found, [[4 / 12, 8 / 21, 9 / 12, 12 / 21]], rtol=1e-6)
        assert found.dtype == np.float32
