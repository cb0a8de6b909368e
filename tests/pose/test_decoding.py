import numpy as np
import pytest
from mgre.pose.crops import CropTransform
from mgre.pose.decoding import decode_heatmaps, decode_simcc


def _draw(points: np.ndarray, size: tuple[int, int], sigma: float = 2) -> np.ndarray:
    """Heatmaps (N, K, *size) with a Gaussian at each of (N, K, 2) x, y, in cells."""
    y, x = np.mgrid[: size[0], : size[1]]
    distance = (x - points[..., 0, None, None]) ** 2 + (y - points[..., 1, None, None]) ** 2
    return np.exp(-distance / (2 * sigma**2)).astype(np.float32)


def _decode_slowly(heatmap: np.ndarray) -> tuple[float, float, float]:
    height, width = heatmap.shape
    best, x, y = 0.0, 0, 0
    for row in range(height):
        for column in range(width):
            if heatmap[row, column] > best:
                best, x, y = heatmap[row, column], column, row
    if best == 0 or x in (0, 1, width - 1) or y in (0, 1, height - 1):
        return x, y, best
    left, right, above, below = heatmap[y, x - 1], heatmap[y, x + 1], heatmap[y - 1, x], heatmap[y + 1, x]
    moved_x = x + 0.25 if right > left else x - 0.25 if right < left else x
    moved_y = y + 0.25 if below > above else y - 0.25 if below < above else y
    return moved_x, moved_y, best


@pytest.mark.parametrize("size", [(5, 4), (9, 7), (3, 3), (1, 6), (64, 48)])
def test_heatmaps_equal_a_loop_over_cells(size: tuple[int, int]):
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(20, 17, *size))
    with_ties = rng.integers(-3, 3, (20, 17, *size))
    negative = -rng.uniform(size=(1, 17, *size))
    heatmaps = np.concatenate([smooth, with_ties, negative]).astype(np.float32)
    expected = [[_decode_slowly(heatmap) for heatmap in crop] for crop in heatmaps]
    keypoints = decode_heatmaps(heatmaps)
    assert keypoints.shape == (41, 17, 3) and keypoints.dtype == np.float32
    np.testing.assert_array_equal(keypoints, np.float32(expected))


@pytest.mark.parametrize("input_size", [(256, 192), (384, 288)])
@pytest.mark.parametrize(
    "crop_size", [(128, 64), (256, 128), (64, 64), (48, 160), (37, 91), (500, 60), (1080, 1920), (5, 3), (1, 1)]
)
def test_drawn_points_come_back_within_a_quarter_of_a_cell(crop_size: tuple[int, int], input_size: tuple[int, int]):
    sides, crop_sides = np.array(input_size[::-1]), np.array(crop_size[::-1])
    scale = (sides / crop_sides).min() / 1.25
    points = np.random.default_rng(0).uniform(-0.05, 1.05, (3, 17, 2)) * crop_sides
    cells = ((points - crop_sides / 2) * scale + sides / 2) / 4
    heatmaps = _draw(cells, (input_size[0] // 4, input_size[1] // 4))

    keypoints = decode_heatmaps(heatmaps)
    found = CropTransform(input_size).to_crop(4 * keypoints[..., :2], crop_size)
    error = np.abs(found - points) * scale / 4
    assert error.max() <= 0.25 + 1e-3
    assert error.max() > 0.2  # the quarter is not always right, so this would see a wrong one
    np.testing.assert_allclose(keypoints[..., 2], heatmaps.max(axis=(2, 3)))


def test_points_near_the_border_are_whole_cells():
    points = np.array([[[0.3, 10], [1.3, 10.3], [46.7, 10.3], [10.3, 0.4], [10.3, 63.4], [45.6, 62.4], [2.3, 1.6]]])
    expected = [[0, 10], [1, 10], [47, 10], [10, 0], [10, 63], [45.75, 62.25], [2.25, 2 - 0.25]]
    np.testing.assert_array_equal(decode_heatmaps(_draw(points, (64, 48)))[0, :, :2], expected)


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf, -np.inf])
def test_a_map_without_a_maximum_is_not_trusted(value: float):
    heatmaps = np.full((1, 17, 8, 6), value, dtype=np.float32)
    np.testing.assert_array_equal(decode_heatmaps(heatmaps), np.zeros((1, 17, 3)))
    np.testing.assert_array_equal(decode_simcc(heatmaps[..., 0], heatmaps[..., 0, :], 2), np.zeros((1, 17, 3)))


def test_one_nan_spoils_its_own_map_alone():
    heatmaps = _draw(np.full((1, 2, 2), 4.0), (10, 8))
    heatmaps[0, 0, 7, 7] = np.nan
    np.testing.assert_array_equal(decode_heatmaps(heatmaps), [[[0, 0, 0], [4, 4, 1]]])


def test_an_infinite_neighbourhood_gives_no_nan():
    heatmaps = np.full((1, 1, 5, 5), -np.inf, dtype=np.float32)
    heatmaps[0, 0, 2, 3] = 0.5
    np.testing.assert_array_equal(decode_heatmaps(heatmaps), [[[3, 2, 0.5]]])


def test_no_crops_give_no_points():
    assert decode_heatmaps(np.zeros((0, 17, 8, 6), np.float32)).shape == (0, 17, 3)
    assert decode_simcc(np.zeros((0, 17, 12), np.float32), np.zeros((0, 17, 16), np.float32), 2).shape == (0, 17, 3)


def test_simcc_is_as_written_by_hand():
    x, y = np.zeros((1, 3, 12), np.float32), np.zeros((1, 3, 16), np.float32)
    x[0, 0, 7], y[0, 0, 10] = 0.9, 0.4
    x[0, 1, 3], y[0, 1, [5, 9]] = 0.2, 0.8  # two equal ones: the first
    x[0, 2, 3] = 0.9  # nothing on the other axis
    keypoints = decode_simcc(x, y, 2)
    assert keypoints.dtype == np.float32
    np.testing.assert_allclose(keypoints, [[[3.5, 5, 0.4], [1.5, 2.5, 0.2], [0, 0, 0]]])


def test_simcc_points_come_back_within_half_a_bin():
    points = np.random.default_rng(0).uniform(0, (191, 255), (5, 17, 2))
    bins = [np.arange(2.5 * side) / 2.5 for side in (192, 256)]
    x, y = (np.exp(-((bins[axis] - points[..., axis, None]) ** 2) / 8) for axis in (0, 1))
    assert np.abs(decode_simcc(x, y, 2.5)[..., :2] - points).max() <= 0.5 / 2.5 + 1e-4
