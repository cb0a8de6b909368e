"""From images as users have them to the pixels that a model takes.

Boxes in a frame are (x_min, y_min, x_max, y_max) in pixels, x to the right, y down, continuous.
"""

import math
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mgre.errors import DataError
from mgre.reading.images import load_image
from mgre.record import ModelRecord

# What stands for one image: its path, a Pillow image, or an array (H, W, 3) of uint8, RGB.
ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray

# Pillow's resizing by these names of a record.
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def to_image(source: ImageLike) -> Image.Image:
    """The image as RGB with 8 bits a channel.

    Raises:
        ImageError: the file cannot be read.
        DataError: an array has another shape or type.
    """
    if isinstance(source, Image.Image):
        return source.convert("RGB")
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise DataError(
                f"an image is an array of shape {source.shape} and type {source.dtype}; allowed: (H, W, 3) of uint8, "
                "RGB (of an image that OpenCV has read: image[:, :, ::-1])"
            )
        return Image.fromarray(np.ascontiguousarray(source))
    return load_image(os.fspath(source))


def crop(frame: ImageLike, boxes: np.ndarray | Sequence[Sequence[float]]) -> list[Image.Image]:
    """Cut boxes out of a frame, rounded outwards to whole pixels, and cut off at the frame's border.

    Args:
        frame: the whole picture.
        boxes: (N, 4), (x_min, y_min, x_max, y_max), in pixels of the frame.

    Raises:
        DataError: a box is not of four finite numbers, is empty, or lies outside the frame.
    """
    image = to_image(frame)
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) if len(boxes) else np.empty((0, 4))
    return [crop_box(image, box, f"box {number}") for number, box in enumerate(boxes.tolist())]


def crop_box(image: Image.Image, box: Sequence[float], name: str) -> Image.Image:
    """Cut one box out of an image, see :func:`crop`.

    Args:
        image: the whole picture.
        box: (x_min, y_min, x_max, y_max), in pixels of the picture.
        name: of the box, for messages.
    """
    box = list(box)
    if not all(map(math.isfinite, box)):
        raise DataError(f"{name} is {box}; allowed: four finite numbers, x_min y_min x_max y_max in pixels")
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(image.width, math.ceil(box[2])), min(image.height, math.ceil(box[3]))
    if box[0] >= box[2] or box[1] >= box[3] or left >= right or top >= bottom:
        raise DataError(
            f"{name}, {box}, is empty or lies outside the frame of {image.width} x {image.height} pixels "
            "(width x height); boxes are x_min y_min x_max y_max"
        )
    return image.crop((left, top, right, bottom))


def prepare(source: ImageLike, record: ModelRecord) -> np.ndarray:
    """One image as the model takes it: (3, H, W) uint8, RGB, of the record's size.

    The pixels are those of the evaluation's transforms.

    Raises:
        ImageError, DataError: see :func:`to_image`.
    """
    image = to_image(source)
    height, width = record.input_size
    image = image.resize((width, height), _RESAMPLING[record.interpolation])
    if record.center_crop is not None:
        left, top, right, bottom = _center(record.input_size, record.center_crop)
        image = image.crop((left, top, right, bottom))
    return np.asarray(image).transpose(2, 0, 1)


def boxes_in_image(boxes: np.ndarray, record: ModelRecord) -> np.ndarray:
    """Boxes of a model in the whole image, of which :func:`prepare` may have cut out the centre.

    Args:
        boxes: (N, 4), (x_min, y_min, x_max, y_max), normalised by the width and height of what the model was given.
        record: of the model.

    Returns:
        (N, 4), normalised by the whole image's width and height.
    """
    if record.center_crop is None:
        return boxes
    left, top, right, bottom = _center(record.input_size, record.center_crop)
    size = np.array((*record.input_size[::-1], *record.input_size[::-1]))
    moved = np.array((left, top, left, top)) + boxes * np.array((right - left, bottom - top) * 2)
    return (moved / size).astype(boxes.dtype)


def _center(size: tuple[int, int], cut: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where the centre of ``cut`` (H, W) is in an image of ``size`` (H, W): left, top, right, bottom."""
    top, left = (round((whole - part) / 2) for whole, part in zip(size, cut, strict=True))
    return left, top, left + cut[1], top + cut[0]
