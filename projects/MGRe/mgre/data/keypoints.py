"""The 17 COCO key points of each image, read from a COCO key point JSON.

Points are (x, y, score): x to the right, y down, in pixels of the crop; sizes are (H, W).
"""

import json
import math
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgre.errors import DataError

COCO_KEYPOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
NUM_KEYPOINTS = len(COCO_KEYPOINTS)

# (left, right) indices that a mirrored image swaps.
FLIP_PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))

# How far, in sides of the image, a trusted point may lie outside before the file is taken to be wrong. Pose models
# overhang a little; pixels of another crop, or (y, x) order, overhang a lot.
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
        """(17,) bool: scored, and not below ``min_score``. A score of 0 is COCO's "not labelled"."""
        scores = self.points[:, 2]
        return (scores > 0) & (scores >= min_score)


def load_keypoints(path: str, *, min_score: float = 0.3) -> dict[str, ImageKeypoints]:
    """Read a COCO key point JSON.

    Args:
        path: the file. Of several annotations of one image the one with the largest ``score`` counts (the mean score of
            the points where an annotation has none).
        min_score: points of a lower score may lie anywhere.

    Returns:
        The key points by ``file_name``, normalised to forward slashes.

    Raises:
        DataError: the file is missing or malformed, or its points cannot be those of its images.
    """
    content = _read_json(path)
    images = _read_images(content["images"], path)
    best: dict[str, tuple[float, ImageKeypoints]] = {}
    for number, annotation in enumerate(content["annotations"]):
        name, size = _image_of(annotation, number, images, path)
        keypoints = ImageKeypoints(_read_points(annotation, name, path), size)
        _check_inside(keypoints, min_score, name, path)
        score = _person_score(annotation, keypoints.points)
        if name not in best or score > best[name][0]:
            best[name] = (score, keypoints)
    return {name: keypoints for name, (_, keypoints) in best.items()}


def find_keypoint_file(file_name: str, folder: str) -> str | None:
    """``file_name`` (``DATASETS.KEYPOINTS``) in the data set's ``folder``, else as a path; None if neither is there."""
    file_name = os.path.expanduser(file_name)
    candidates = (os.path.join(folder, file_name), file_name)
    return next((path for path in candidates if os.path.isfile(path)), None)


def match_keypoints(
    keypoints: Mapping[str, ImageKeypoints], image_paths: Iterable[str], folder: str
) -> dict[str, ImageKeypoints]:
    """The key points by image path, for those images of ``folder`` that have some."""
    names = {path: file_name_of(path, folder) for path in image_paths}
    return {path: keypoints[name] for path, name in names.items() if name in keypoints}


def file_name_of(image_path: str, folder: str) -> str:
    """``file_name`` that a key point file gives an image: relative to the data set's folder, forward slashes."""
    return os.path.relpath(image_path, folder).replace(os.sep, "/")


def _read_json(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError as error:
        raise DataError(
            f"Key point file '{path}' does not exist; set DATASETS.KEYPOINTS to the file you have"
        ) from error
    except OSError as error:
        raise DataError(f"Key point file '{path}' cannot be read ({error.strerror}); mend its permissions") from error
    except ValueError as error:
        raise DataError(f"Key point file '{path}' is not JSON ({error}); write or copy it again") from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f"Key point file '{path}' is not COCO key point JSON: it has no list '{key}'; "
                "write an object with the lists 'images' and 'annotations'"
            )
    return content


def _read_images(entries: Sequence[Any], path: str) -> dict[int | str, tuple[str, tuple[int, int]]]:
    """File name and (H, W) by image id."""
    images: dict[int | str, tuple[str, tuple[int, int]]] = {}
    for number, entry in enumerate(entries):
        if not _is_image_entry(entry):
            raise DataError(
                f"Key point file '{path}' is not COCO key point JSON: images[{number}] needs an id, "
                "a file_name, and a width and a height in pixels"
            )
        if entry["id"] in images:
            raise DataError(
                f"Key point file '{path}' gives id {entry['id']} to two images, '{images[entry['id']][0]}' and "
                f"'{entry['file_name']}'; give each image an id of its own"
            )
        name = posixpath.normpath(entry["file_name"].replace("\\", "/"))
        images[entry["id"]] = name, (entry["height"], entry["width"])
    return images


def _is_image_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("id"), int | str)
        and isinstance(entry.get("file_name"), str)
        and all(isinstance(entry.get(key), int) and entry[key] > 0 for key in ("width", "height"))
    )


def _image_of(
    annotation: Any, number: int, images: Mapping[int | str, tuple[str, tuple[int, int]]], path: str
) -> tuple[str, tuple[int, int]]:
    """File name and (H, W) of the image that an annotation belongs to."""
    if not isinstance(annotation, dict) or not isinstance(annotation.get("keypoints"), list):
        raise DataError(
            f"Key point file '{path}' is not COCO key point JSON: annotations[{number}] needs an image_id "
            "and a list 'keypoints'"
        )
    image_id = annotation.get("image_id")
    if not isinstance(image_id, int | str) or image_id not in images:
        raise DataError(
            f"Key point file '{path}': annotations[{number}] belongs to image_id {image_id}, which is not in 'images'; "
            "add the image or remove the annotation"
        )
    return images[image_id]


def _read_points(annotation: Mapping[str, Any], name: str, path: str) -> np.ndarray:
    """(17, 3) x, y, score of an annotation."""
    values = annotation["keypoints"]
    where = f"Key point file '{path}': the key points of '{name}'"
    if len(values) != 3 * NUM_KEYPOINTS:
        raise DataError(
            f"{where} are {len(values)} values, not {3 * NUM_KEYPOINTS}; "
            f"write x, y, score of the {NUM_KEYPOINTS} COCO key points"
        )
    if not all(isinstance(value, int | float) for value in values):
        raise DataError(f"{where} are not all numbers; write x, y in pixels and a score from 0 to 1")
    points = np.array(values, dtype=np.float32).reshape(NUM_KEYPOINTS, 3)
    if not np.isfinite(points).all():
        raise DataError(f"{where} have a NaN or infinite value; leave the annotation out or give the point score 0")
    if (points[:, 2] < 0).any():
        raise DataError(f"{where} have a negative score; give a point that is not trusted score 0")
    return points


def _check_inside(keypoints: ImageKeypoints, min_score: float, name: str, path: str) -> None:
    height, width = keypoints.size
    side = np.array([width, height])
    overhang = np.maximum(-keypoints.points[:, :2], keypoints.points[:, :2] - side) / side
    far_out = (overhang.max(axis=1) > MAX_OVERHANG) & keypoints.trusted(min_score)
    if far_out.any():
        index = int(far_out.argmax())
        x, y, score = keypoints.points[index]
        raise DataError(
            f"Key point file '{path}': {COCO_KEYPOINTS[index]} of '{name}' is at x {x:g}, y {y:g} (score {score:g}), "
            f"outside the image of {width} x {height} pixels (width x height); "
            "write pixels of the crop, x before y, or a score under DATASETS.KEYPOINT_MIN_SCORE"
        )


def _person_score(annotation: Mapping[str, Any], points: np.ndarray) -> float:
    score = annotation.get("score")
    if isinstance(score, int | float) and math.isfinite(score):
        return float(score)
    return float(points[:, 2].mean())
