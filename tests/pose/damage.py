"""Damaged versions of a key point file, for the tests of the check."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from mgre.data.keypoints import FLIP_PAIRS

Damage = Callable[[dict[str, Any]], Any]

MIRRORED = [0, *(index for left, right in FLIP_PAIRS for index in (right, left))]


def with_points(change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Change the points (N, 17, 3) of all annotations."""

    def damage(content):
        entries = content["annotations"]
        points = np.array([entry["keypoints"] for entry in entries]).reshape(-1, 17, 3)
        for entry, changed in zip(entries, change(points), strict=True):
            entry["keypoints"] = np.asarray(changed).ravel().tolist()
        return content

    return damage


def with_images(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Damage:
    """Update the entry of each image by what ``change`` says of it."""

    def damage(content):
        for image in content["images"]:
            image |= change(image)
        return content

    return damage


def hips_exchanged(points: np.ndarray) -> np.ndarray:
    """Left and right of the legs alone."""
    return points[:, [*range(11), 12, 11, 14, 13, 16, 15]]


def _posetrack(points: np.ndarray) -> np.ndarray:
    """The neck and the top of the head instead of the eyes."""
    points = points.copy()
    nose, shoulders = points[:, 0, :2], points[:, 5:7, :2].mean(axis=1)
    points[:, 1, :2] = 0.7 * shoulders + 0.3 * nose
    points[:, 2, :2] = nose - 0.4 * (shoulders - nose)
    return points


def damages(num_images: int, size: tuple[int, int]) -> dict[str, tuple[Damage, str]]:
    """Damages and the regular expression of each one's own message, for a file of so many images of one ``size``."""
    height, width = size
    larger = (width + 16, height + 32)
    every = rf"{num_images} of {num_images} images \(100\.0%; first .*\)"
    return {
        "cut short": (lambda content: json.dumps(content)[:-100], "is not JSON"),
        "16 points": (with_points(lambda points: points[:, :16]), "are 48 values, not 51"),
        "not a number": (with_points(lambda points: points * np.nan), "have a NaN or infinite value"),
        "x and y": (
            with_points(lambda points: points[..., [1, 0, 2]]),
            "x and y look swapped: the person is wider than tall",
        ),
        "normalised": (with_points(lambda points: points / [width, height, 1]), "coordinates are normalised"),
        "heatmap's": (with_points(lambda points: points / [4, 4, 1]), "coordinates are of smaller images"),
        "larger images'": (
            with_points(lambda points: points * [4, 4, 1]),
            f"outside the image of {width} x {height} pixels",
        ),
        "y goes up": (
            with_points(lambda points: [0, height, 0] + points * [1, -1, 1]),
            "upside down, or joints in reverse order",
        ),
        "hips are knees": (
            with_points(lambda points: points[:, [*range(11), 13, 14, 11, 12, 15, 16]]),
            "hips, knees and ankles are not below each other",
        ),
        "PoseTrack": (with_points(_posetrack), "joints of PoseTrack, not of COCO"),
        "hips": (
            with_points(hips_exchanged),
            "left and right of the shoulders and of the eyes, ears or hips disagree",
        ),
        "left and right": (
            with_points(lambda points: points[:, MIRRORED]),
            "left and right are exchanged in the file",
        ),
        "stuck": (
            with_points(lambda points: points[:1].repeat(len(points), axis=0)),
            f"{num_images} images have only 1 different sets of points",
        ),
        "no scores": (
            with_points(lambda points: points * [1, 1, 0]),
            f"{every} have no trusted point: all scores are too low",
        ),
        "another set": (
            with_images(lambda image: {"file_name": f"other/{image['file_name']}"}),
            rf"of another data set: none of its {num_images} images \(first other/",
        ),
        "resized": (
            with_images(lambda _: dict(zip(("width", "height"), larger, strict=True))),
            rf"width or height are not the image's in {every}: .* {larger[0]} x {larger[1]} .* and {width} x {height} "
            "on disk",
        ),
    }
