"""The 17 COCO key points of an image, and the place of a data set's key point file.

Points are (x, y, score): x to the right, y down, in pixels of the crop; sizes are (H, W).
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mgre.regions import COCO_KEYPOINTS as COCO_KEYPOINTS

NUM_KEYPOINTS = len(COCO_KEYPOINTS)


# Indices (left, right) of the points that swap their names in a mirrored image.
FLIP_PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))


# COCO's limbs, as pairs of indices.
COCO_SKELETON = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)


# The points of pose models overhang a little. A trusted point further outside its image than this, in sides of the
# image, is a wrong one. In many images it is a fault of the file: pixels of another crop overhang a lot.
MAX_OVERHANG = 0.1


@dataclass(frozen=True)
class ImageKeypoints:
    """The key points of one image.

    Attributes:
        points: (17, 3) float32, rows in :data:`COCO_KEYPOINTS` order: x, y in pixels, score >= 0.
        size: (H, W) of the image the points were found in, pixels.
    """

    points: np.ndarray
    size: tuple[int, int]

    def trusted(self, min_score: float) -> np.ndarray:
        """(17,) bool, see :func:`trusted_points`."""
        return trusted_points(self.points, min_score)


def trusted_points(points: np.ndarray, min_score: float) -> np.ndarray:
    """Which of ``points`` (..., 17, 3) are scored, and not below ``min_score``: (..., 17) bool. A score of 0 is COCO's
    "not labelled"."""
    scores = points[..., 2]
    return (scores > 0) & (scores >= min_score)


def find_keypoint_file(file_name: str, folder: str) -> str | None:
    """The path of ``file_name`` (``DATASETS.KEYPOINTS``): in the data set's ``folder``, else ``file_name`` itself; None
    if neither exists."""
    file_name = os.path.expanduser(file_name)
    candidates = (os.path.join(folder, file_name), file_name)
    return next((path for path in candidates if os.path.isfile(path)), None)


def keypoint_path(file_name: str, folder: str) -> str:
    """The key point file of the images in ``folder``, to read or to write.

    It is the file that training would read (:func:`find_keypoint_file`). If that does not exist, it is ``file_name`` in
    the folder, or ``file_name`` itself if it is an absolute path.
    """
    return find_keypoint_file(file_name, folder) or os.path.join(folder, os.path.expanduser(file_name))


def match_keypoints(
    keypoints: Mapping[str, ImageKeypoints], image_paths: Iterable[str], folder: str
) -> dict[str, ImageKeypoints]:
    """The key points by image path, of the images of ``folder`` that have key points."""
    names = {path: file_name_of(path, folder) for path in image_paths}
    return {path: keypoints[name] for path, name in names.items() if name in keypoints}


def file_name_of(image_path: str, folder: str) -> str:
    """The ``file_name`` of an image in a key point file: relative to the data set's folder, with forward slashes.

    Examples:
        >>> file_name_of("own/query/a.jpg", "own"), file_name_of("others/b.jpg", "own")
        ('query/a.jpg', '../others/b.jpg')
    """
    inner = image_path.removeprefix(os.path.join(folder, ""))
    # relpath asks for the working directory, for each image anew; most images lie below the folder.
    if inner == image_path or inner != os.path.normpath(inner) or inner.startswith((os.pardir, os.sep)):
        inner = os.path.relpath(image_path, folder)
    return inner.replace(os.sep, "/")


def untrust_outside(points: np.ndarray, size: tuple[int, int] | np.ndarray) -> np.ndarray:
    """A copy of ``points`` (..., 17, 3) in which the points outside the image of ``size`` (H, W), or (..., 2), have
    score 0."""
    side = np.asarray(size)[..., None, ::-1]
    outside = ((points[..., :2] < 0) | (points[..., :2] > side)).any(axis=-1)
    return np.concatenate([points[..., :2], np.where(outside, 0, points[..., 2])[..., None]], axis=-1)


def far_outside(points: np.ndarray, size: tuple[int, int] | np.ndarray, min_score: float) -> np.ndarray:
    """Which of ``points`` (..., 17, 3) are trusted and lie further than ``MAX_OVERHANG`` outside their image of
    ``size`` (H, W), or (..., 2): (..., 17) bool."""
    side = np.asarray(size)[..., None, ::-1]
    overhang = np.maximum(-points[..., :2], points[..., :2] - side) / side
    return (overhang.max(axis=-1) > MAX_OVERHANG) & trusted_points(points, min_score)
