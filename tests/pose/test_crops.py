import cv2
import numpy as np
import pytest
from mgre.pose.crops import CropTransform

CROP_SIZES = [(128, 64), (256, 128), (64, 64), (48, 160), (37, 91), (500, 60), (2, 3), (1, 1)]


def _authors_matrix(crop_size: tuple[int, int], input_size: tuple[int, int]) -> np.ndarray:
    """Crop to input (2, 3) as HRNet's authors find it: from three points of a box widened to the input's shape."""
    (height, width), (input_height, input_width) = crop_size, input_size
    box_width = 1.25 * max(width, height * input_width / input_height)
    centre, middle = np.array([width / 2, height / 2]), np.array([input_width / 2, input_height / 2])
    box_points = [centre, centre - (0, box_width / 2), centre - (box_width / 2, box_width / 2)]
    input_points = [middle, middle - (0, input_width / 2), middle - (input_width / 2, input_width / 2)]
    return cv2.getAffineTransform(np.float32(box_points), np.float32(input_points))


def test_a_tall_crop_is_as_computed_by_hand():
    # 128 x 64 fits into 256 x 192 at 256 / (1.25 * 128) = 1.6: 204.8 x 102.4 in the middle.
    points = CropTransform((256, 192)).to_crop(np.array([[44.8, 25.6], [96, 128], [44.8 + 102.4, 25.6]]), (128, 64))
    np.testing.assert_allclose(points, [[0, 0], [32, 64], [64, 0]], atol=1e-9)


def test_a_wide_crop_is_as_computed_by_hand():
    # 60 x 120 fits into 256 x 192 at 192 / (1.25 * 120) = 1.28: 76.8 x 153.6 in the middle.
    points = CropTransform((256, 192)).to_crop(np.array([[19.2, 89.6], [19.2 + 1.28, 89.6 + 2.56]]), (60, 120))
    np.testing.assert_allclose(points, [[0, 0], [1, 2]], atol=1e-9)


@pytest.mark.parametrize("crop_size", CROP_SIZES)
@pytest.mark.parametrize("input_size", [(256, 192), (384, 288), (64, 64)])
def test_points_go_back_as_through_the_authors_matrix(crop_size: tuple[int, int], input_size: tuple[int, int]):
    points = np.random.default_rng(0).uniform(-0.1, 1.1, (20, 2)) * crop_size[::-1]
    matrix = _authors_matrix(crop_size, input_size)
    on_input = points @ matrix[:, :2].T + matrix[:, 2]
    back = CropTransform(input_size).to_crop(on_input, crop_size)
    np.testing.assert_allclose(back, points, atol=1e-4 * max(crop_size))


@pytest.mark.parametrize("crop_size", CROP_SIZES[:-2])
def test_each_pixel_of_the_input_shows_the_crop_where_its_point_goes_back_to(crop_size: tuple[int, int]):
    height, width = crop_size
    slope = 250 / np.array([width, height])
    y, x = np.mgrid[:height, :width]
    crop = np.stack([x * slope[0], y * slope[1], np.full(crop_size, 99)], axis=-1).round().astype(np.uint8)
    transform = CropTransform((96, 64), mean=(0, 0, 0), std=(1, 1, 1))
    image = 255 * transform.to_input(crop)

    row, column = np.mgrid[:96, :64]
    points = transform.to_crop(np.stack([column, row], axis=-1), crop_size)
    inside = ((points >= 0) & (points <= (width - 1, height - 1))).all(axis=-1)
    outside = ((points < -1) | (points > (width, height))).any(axis=-1)
    assert inside.sum() > 200 and outside.sum() > 200
    # Bilinear interpolation is exact on a slope, but for rounding of the crop and of the result.
    np.testing.assert_allclose(image[:2, inside], (points[inside] * slope).T, atol=2)
    np.testing.assert_allclose(image[2, inside], 99, atol=1)
    assert (image[:, outside] == 0).all()


def test_colours_are_normalised_rgb_and_black_around():
    image = CropTransform((64, 64)).to_input(np.full((20, 10, 3), (255, 0, 51), dtype=np.uint8))
    assert image.shape == (3, 64, 64) and image.dtype == np.float32 and image.flags.c_contiguous
    inside = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(image[:, 32, 32], inside, rtol=1e-5)
    np.testing.assert_allclose(image[:, 0, 0], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)


def test_views_of_other_arrays_are_taken():
    image = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    transform = CropTransform((64, 32))
    for view in (image[::-1], image[:, ::-1, ::-1], image[::2, 3:11]):
        np.testing.assert_array_equal(transform.to_input(view), transform.to_input(np.ascontiguousarray(view)))
