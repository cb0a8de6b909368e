"""Reads and writes COCO key point JSON.

Points are (x, y, score): x to the right, y down, in pixels of the crop; sizes are (H, W).
"""

import json
import logging
import math
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mgre.data.keypoints import (
    COCO_KEYPOINTS,
    COCO_SKELETON,
    NUM_KEYPOINTS,
    ImageKeypoints,
    far_outside,
    untrust_outside,
)
from mgre.errors import DataError
from mgre.system.files import explain_unwritable, write_atomically
from mgre.system.garbage import no_garbage_collection

logger = logging.getLogger(__name__)

# What to do where a file does not exist.
USE_ANOTHER = "set DATASETS.KEYPOINTS to the file you have"


def load_keypoints(path: str, *, min_score: float = 0.3) -> dict[str, ImageKeypoints]:
    """Read a COCO key point JSON.

    Args:
        path: the file. If an image has several annotations, the one with the largest ``score`` counts. The ``score`` of
            an annotation without one is the mean score of its points.
        min_score: points of a lower score are not trusted. Trusted points far outside their image are counted in the
            log.

    Returns:
        The key points by ``file_name`` with forward slashes. Points outside their image have score 0.

    Raises:
        DataError: the file is missing or malformed. Whether its points are those of its images is not checked: see
            :mod:`mgre.data.keypoint_checks`.
    """
    with no_garbage_collection():
        _, people = read_people(path)
        return trust_inside(best_people(people), path, min_score)


def trust_inside(keypoints: Mapping[str, ImageKeypoints], path: str, min_score: float) -> dict[str, ImageKeypoints]:
    """The ``keypoints`` of the file ``path``, where the points outside their image have score 0; warns of trusted ones
    that lie far outside."""
    if not keypoints:
        return {}
    # A data set has ten thousands of images: arrays of all are many times as fast as one array each.
    points, sizes = (np.stack(values) for values in zip(*((k.points, k.size) for k in keypoints.values()), strict=True))
    far = far_outside(points, sizes, min_score)
    if far.any():
        images, indices = far.nonzero()
        name, index = list(keypoints)[images[0]], indices[0]
        x, y, _ = points[images[0], index]
        logger.warning(
            "%s: points far outside their images are not trusted: %d in %d of %d images, first %s of %s at x %g, y %g",
            *(path, len(images), len(set(images)), len(keypoints), COCO_KEYPOINTS[index], name, x, y),
        )
    inside = untrust_outside(points, sizes)
    return {name: ImageKeypoints(inside[i], k.size) for i, (name, k) in enumerate(keypoints.items())}


def read_people(path: str, *, remedy: str = USE_ANOTHER) -> tuple[list[str], list[tuple[str, float, ImageKeypoints]]]:
    """All images and annotations of a COCO key point JSON, in the file's order.

    Args:
        remedy: what to do where the file does not exist.

    Returns:
        The ``file_name`` of each image; and of each annotation the image's ``file_name``, the person's score and the
        key points.

    Raises:
        DataError: the file is missing or malformed. The places of the points are not checked.
    """
    content = _read_coco(path, remedy)
    images = _read_images(content["images"], path)
    parsed = _parse_all(content["annotations"])
    people = []
    for number, annotation in enumerate(content["annotations"]):
        name, size = _image_of(annotation, number, images, path)
        points = parse_points(annotation["keypoints"], name, path) if parsed is None else parsed[number]
        people.append((name, person_score(annotation, points), ImageKeypoints(points, size)))
    return [name for name, _ in images.values()], people


def best_people(people: Iterable[tuple[str, float, ImageKeypoints]]) -> dict[str, ImageKeypoints]:
    """By ``file_name``, the key points of the person with the largest score; the first of equal scores."""
    best: dict[str, tuple[float, ImageKeypoints]] = {}
    for name, score, keypoints in people:
        if name not in best or score > best[name][0]:
            best[name] = (score, keypoints)
    return {name: keypoints for name, (_, keypoints) in best.items()}


def write_keypoints(
    path: str, keypoints: Mapping[str, ImageKeypoints], *, info: Mapping[str, Any] | None = None
) -> None:
    """Write the COCO key point JSON that :func:`load_keypoints` reads, atomically.

    Args:
        path: the file; an existing one is replaced.
        keypoints: by ``file_name``. Values are rounded to 3 decimals; the person's box is the whole image.
        info: the content of the file's entry "info", in JSON's types.

    Raises:
        SetupError: the file cannot be written.
    """
    images, annotations = [], []
    for number, (name, found) in enumerate(sorted(keypoints.items()), start=1):
        height, width = found.size
        points = np.round(found.points.astype(np.float64), 3)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "keypoints": points.ravel().tolist(),
                "num_keypoints": int((points[:, 2] > 0).sum()),
                "score": round(float(points[:, 2].mean()), 3),
                "bbox": [0, 0, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
        )
    skeleton = [(a + 1, b + 1) for a, b in COCO_SKELETON]  # COCO counts from 1 here
    category = {"id": 1, "name": "person", "keypoints": COCO_KEYPOINTS, "skeleton": skeleton}
    content = {"info": dict(info or {}), "images": images, "annotations": annotations, "categories": [category]}
    with (
        explain_unwritable(f"Key point file '{path}'", "make room, or name a file in a folder you can write to"),
        write_atomically(path) as unfinished,
        open(unfinished, "w", encoding="utf-8") as file,
    ):
        file.write(json.dumps(content, allow_nan=False))


def read_json(path: str, *, remedy: str = USE_ANOTHER) -> Any:
    """The content of a JSON file.

    Args:
        remedy: what to do where the file does not exist.

    Raises:
        DataError: the file is missing, cannot be read or is not JSON.
    """
    if os.path.isdir(path):
        raise DataError(f"Key point file '{path}' is a folder; name the file in it")
    try:
        with open(path, encoding="utf-8-sig") as file:  # with a byte-order mark or without
            return json.load(file)
    except FileNotFoundError as error:
        raise DataError(f"Key point file '{path}' does not exist; {remedy}") from error
    except OSError as error:
        raise DataError(f"Key point file '{path}' cannot be read ({error.strerror}); mend its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"Key point file '{path}' is not JSON ({error}); write or copy it again") from error


def _read_coco(path: str, remedy: str) -> dict[str, Any]:
    content = read_json(path, remedy=remedy)
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f"Key point file '{path}' is not COCO key point JSON: it has no list '{key}'; "
                "convert it with tools/extract_keypoints.py --import, for a list of results --import coco FILE, or "
                "write an object with the lists 'images' and 'annotations'"
            )
    return content


def _read_images(entries: Sequence[Any], path: str) -> dict[int | str, tuple[str, tuple[int, int]]]:
    """File name and (H, W) by image id."""
    for number, entry in enumerate(entries):
        if not _is_image_entry(entry):
            raise DataError(
                f"Key point file '{path}' is not COCO key point JSON: images[{number}] needs an id, "
                "a file_name, and a width and a height in pixels"
            )
    return {
        image_id: (posixpath.normpath(entry["file_name"].replace("\\", "/")), (entry["height"], entry["width"]))
        for image_id, entry in entries_by_id(entries, path).items()
    }


def entries_by_id(entries: Iterable[Mapping[str, Any]], path: str) -> dict[int | str, Mapping[str, Any]]:
    """The entries of COCO's list 'images', each with an ``id`` and a ``file_name``, by ``id``.

    Raises:
        DataError: two entries have the same id.
    """
    images: dict[int | str, Mapping[str, Any]] = {}
    for entry in entries:
        if entry["id"] in images:
            raise DataError(
                f"Key point file '{path}' gives id {entry['id']} to two images, "
                f"'{images[entry['id']]['file_name']}' and '{entry['file_name']}'; give each image an id of its own"
            )
        images[entry["id"]] = entry
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


def _parse_all(annotations: Sequence[Any]) -> np.ndarray | None:
    """What :func:`parse_points` gives for each of N annotations, (N, 17, 3), in one go; None if it refuses one."""
    try:
        rows = [annotation["keypoints"] for annotation in annotations]
        if any(len(row) != 3 * NUM_KEYPOINTS or not set(map(type, row)) <= {int, float} for row in rows):
            return None
        with np.errstate(over="ignore"):
            points = np.array(rows, dtype=np.float32).reshape(len(rows), NUM_KEYPOINTS, 3)
    except (TypeError, LookupError, ValueError, OverflowError):
        return None
    return points if np.isfinite(points).all() and (points[..., 2] >= 0).all() else None


def parse_points(values: Sequence[Any], name: str, path: str) -> np.ndarray:
    """(17, 3) x, y, score from 51 ``values``; ``name`` of the image and ``path`` of the file are for the messages.

    Raises:
        DataError: the values are not 51 finite numbers with scores of 0 or more.
    """
    where = f"Key point file '{path}': the key points of '{name}'"
    if len(values) != 3 * NUM_KEYPOINTS:
        raise DataError(
            f"{where} are {len(values)} values, not {3 * NUM_KEYPOINTS}; "
            f"write x, y, score of the {NUM_KEYPOINTS} COCO key points"
        )
    if not all(isinstance(value, int | float) for value in values):
        raise DataError(f"{where} are not all numbers; write x, y in pixels and a score from 0 to 1")
    with np.errstate(over="ignore"):  # a number that overflows becomes infinite and is refused below
        points = np.array(values, dtype=np.float32).reshape(NUM_KEYPOINTS, 3)
    if not np.isfinite(points).all():
        raise DataError(f"{where} have a NaN or infinite value; leave the annotation out or give the point score 0")
    if (points[:, 2] < 0).any():
        raise DataError(f"{where} have a negative score; give a point that is not trusted score 0")
    return points


def person_score(annotation: Mapping[str, Any], points: np.ndarray) -> float:
    """The score by which the best of several people in an image is chosen: that of the annotation, else the mean score
    of its ``points``."""
    score = annotation.get("score")
    if isinstance(score, int | float) and math.isfinite(score):
        return float(score)
    return float(points[:, 2].mean())
