"""Decodes a pose model's output, heatmaps or SimCC vectors, to key points.

Legend: N crops, K key points, (h, w) a heatmap's size. Points are (x, y): x to the right, y down, the centre of the
first cell (or input pixel) at (0, 0). If the maximum is not a positive number (flat, negative, NaN or infinite output),
no point is found: the point is (0, 0) with score 0, and points of score 0 are never trusted.
"""

import numpy as np


def decode_heatmaps(heatmaps: np.ndarray) -> np.ndarray:
    """Heatmaps (N, K, h, w) to (N, K, 3), float32: x, y in heatmap cells, and the maximum as the score.

    A point is the highest cell (the first of equal cells), moved by a quarter of a cell towards the higher neighbour on
    each axis: HRNet Sec. 4.1, ``get_max_preds`` and ``get_final_preds`` of its authors. As in their code, a highest
    cell in the first two rows or columns, or in the last one, is not moved.
    """
    height, width = heatmaps.shape[2:]
    peak, score = _highest(heatmaps.reshape(*heatmaps.shape[:2], height * width))
    y, x = np.divmod(peak, width)
    points = np.stack([x, y], axis=-1).astype(np.float32)

    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    crop, joint = np.nonzero(inside)
    x, y = x[inside], y[inside]
    points[inside, 0] += 0.25 * _sign(heatmaps[crop, joint, y, x + 1], heatmaps[crop, joint, y, x - 1])
    points[inside, 1] += 0.25 * _sign(heatmaps[crop, joint, y + 1, x], heatmaps[crop, joint, y - 1, x])
    return _join(points, score)


def decode_simcc(x: np.ndarray, y: np.ndarray, split_ratio: float) -> np.ndarray:
    """SimCC vectors x (N, K, Wx) and y (N, K, Hy) to (N, K, 3), float32: x, y in input pixels, and the score.

    Each coordinate is the highest bin of its axis (the first of equal bins). The score is the smaller of the two
    maxima, as in ``get_simcc_maximum`` of mmpose.

    Args:
        split_ratio: bins for each pixel of the input.
    """
    columns, score_x = _highest(x)
    rows, score_y = _highest(y)
    return _join(np.stack([columns, rows], axis=-1) / split_ratio, np.minimum(score_x, score_y))


def _highest(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index and value of the maximum along the last axis; NaN counts as the highest."""
    index = values.argmax(axis=-1)
    return index, np.take_along_axis(values, index[..., None], axis=-1)[..., 0]


def _sign(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """1 where ``after`` is higher, -1 where ``before`` is higher, else 0. Not the sign of the difference, because
    inf - inf is NaN."""
    return np.greater(after, before).astype(np.float32) - np.less(after, before)


def _join(points: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Points (N, K, 2) and scores (N, K) to (N, K, 3), zeros where no point is found."""
    found = np.isfinite(score) & (score > 0)
    keypoints = np.concatenate([points, score[..., None]], axis=-1)
    return np.where(found[..., None], keypoints, 0).astype(np.float32)
