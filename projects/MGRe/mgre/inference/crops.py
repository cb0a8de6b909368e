"""Which images an extraction is of, and how they become pixels: files, boxes in pictures, boxes in a video's frames."""

import math
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from PIL import Image

from mgre.errors import ConfigError, DataError
from mgre.inference.doubts import is_grey, is_small
from mgre.inference.preparation import crop_box, prepare
from mgre.inference.video import VideoFrames
from mgre.reading.csv_table import Row, read_table
from mgre.reading.image_files import IMAGE_SUFFIXES, list_image_files_below
from mgre.reading.images import load_image
from mgre.record import ModelRecord
from mgre.system.prefetching import NUM_THREADS, prefetch

BOX = ("x_min", "y_min", "x_max", "y_max")


@dataclass(frozen=True)
class Crop:
    """An image of one person: a file, or a box in a file or frame.

    Attributes:
        path: of the image or video.
        box: (x_min, y_min, x_max, y_max), in pixels; None for the whole image.
        frame: number of the video's frame, from 0; None for an image.
        where: the line of the CSV, for messages; empty where there is none.
        facts: what else the CSV says of it, by column.
    """

    path: str
    box: tuple[float, float, float, float] | None = None
    frame: int | None = None
    where: str = ""
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path if self.frame is None else f"{self.path} frame {self.frame}"


@dataclass(frozen=True)
class Reading:
    """What became of a crop.

    Attributes:
        number: of the crop in the sequence.
        crop: itself.
        pixels: for the model, (3, H, W); None where there are none.
        fault: why there are none.
        is_small, is_grey: why the feature says little, see :mod:`mgre.inference.doubts`.
    """

    number: int
    crop: Crop
    pixels: np.ndarray | None = None
    fault: str = ""
    is_small: bool = False
    is_grey: bool = False


def list_files(inputs: Sequence[str]) -> list[Crop]:
    """The image files among the inputs, and all in folders among them and below.

    Raises:
        DataError: an input does not exist, or a folder has no image.
    """
    paths: dict[str, None] = {}
    for given in inputs:
        if os.path.isdir(given):
            found = sorted(list_image_files_below(given))
            if not found:
                raise DataError(f"folder '{given}' has no images ({', '.join(IMAGE_SUFFIXES)}) in it or below")
            paths |= dict.fromkeys(found)
        elif os.path.exists(given):
            paths[given] = None
        else:
            raise DataError(f"'{given}' is not there: name image files and folders of them")
    return [Crop(path) for path in paths]


def list_csv(csv_path: str) -> list[Crop]:
    """The images of a CSV with the column path, relative to its folder, and the boxes in them if it has columns for
    these. Other columns are facts.

    Raises:
        DataError: the CSV cannot be read, or a line of it is wrong.
    """
    folder = os.path.dirname(csv_path)
    rows = list(_read_rows(csv_path, ("path",)))
    with_boxes = any(name in row.cells for row in rows[:1] for name in BOX)
    rows = list(_read_rows(csv_path, ("path", *BOX))) if with_boxes else rows
    crops = []
    for row in rows:
        written = row.cells.pop("path")
        if not written:
            raise DataError(f"{row.where}: path is empty; name an image")
        box = _parse_box(row) if with_boxes else None
        crops.append(Crop(_find(folder, written), box, where=row.where, facts=row.cells))
    return crops


def list_video(video_path: str, csv_path: str) -> list[Crop]:
    """The boxes in a video of a CSV with the column frame, from 0, and those of boxes. Other columns are facts.

    Raises:
        DataError: the CSV cannot be read, or a line of it is wrong; or the video is not there.
    """
    if not os.path.isfile(video_path):
        raise DataError(f"video '{video_path}' is {'a folder' if os.path.isdir(video_path) else 'not there'}")
    crops = []
    for row in _read_rows(csv_path, ("frame", *BOX)):
        frame = _parse_number(row, "frame")
        if frame < 0 or frame != int(frame):
            raise DataError(f"{row.where}: frame is '{frame:g}'; frames are whole numbers from 0")
        box = _parse_box(row)
        del row.cells["frame"]
        crops.append(Crop(video_path, box, int(frame), row.where, row.cells))
    return crops


def read_crops(crops: Sequence[Crop], record: ModelRecord, *, num_ahead: int) -> Generator[Reading, None, None]:
    """Decode, cut out and resize crops in threads. A picture with several boxes is decoded once, so its crops come one
    after the other; those of a video in the order of the frames.

    Args:
        crops: of image files or of one video.
        record: of the model.
        num_ahead: crops that are read ahead, about.

    Raises:
        SetupError: OpenCV, which reads videos, is not installed.
        DataError: the video cannot be read.
    """
    pictures: dict[tuple[int, str], list[tuple[int, Crop]]] = {}
    for number, crop in enumerate(crops):
        pictures.setdefault((crop.frame or 0, crop.path), []).append((number, crop))
    if not pictures:
        return
    source: _Source
    if crops[0].frame is None:
        source, num_threads = _Files(), NUM_THREADS
    else:
        pictures = dict(sorted(pictures.items()))
        source, num_threads = VideoFrames(crops[0].path), 1  # frames can only be read one after the other
    pictures_ahead = num_threads + num_ahead * len(pictures) // len(crops)
    function = partial(_read, source, record)
    readings = prefetch(function, pictures.values(), num_ahead=pictures_ahead, num_threads=num_threads)
    with closing(source), closing(readings):
        for group in readings:
            yield from group


class _Source(Protocol):
    """Where pictures come from."""

    def read(self, path: str, frame: int) -> Image.Image: ...

    def close(self) -> None: ...


class _Files:
    def read(self, path: str, frame: int) -> Image.Image:
        return load_image(path)

    def close(self) -> None:
        pass


def _read(source: _Source, record: ModelRecord, crops: Sequence[tuple[int, Crop]]) -> list[Reading]:
    """The crops of one picture, with their numbers."""
    first = crops[0][1]
    try:
        picture = source.read(first.path, first.frame or 0)
    except DataError as error:
        return [Reading(number, crop, fault=str(error)) for number, crop in crops]
    readings = []
    for number, crop in crops:
        try:
            image = picture if crop.box is None else crop_box(picture, crop.box, f"{crop.where}: the box")
            pixels = prepare(image, record)
            small, grey = is_small(image.height, image.width, record), is_grey(pixels.transpose(1, 2, 0))
            readings.append(Reading(number, crop, pixels, is_small=small, is_grey=grey))
        except DataError as error:
            readings.append(Reading(number, crop, fault=str(error)))
    return readings


def _read_rows(csv_path: str, columns: Sequence[str]) -> Iterator[Row]:
    if not os.path.exists(csv_path):
        raise DataError(f"'{csv_path}' is not there: name a CSV")
    return read_table(csv_path, columns, with_others=True)


def _parse_box(row: Row) -> tuple[float, float, float, float]:
    x_min, y_min, x_max, y_max = (_parse_number(row, name) for name in BOX)
    for name in BOX:
        del row.cells[name]
    return x_min, y_min, x_max, y_max


def _parse_number(row: Row, name: str) -> float:
    text = row.cells[name]
    try:
        number = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{row.where}: {name} is '{text}'; give a number, boxes are x_min y_min x_max y_max in pixels")
    return number


def _find(folder: str, written: str) -> str:
    """The path of an image; backslashes separate folders where no file has them in its name."""
    paths = [os.path.join(folder, text) for text in (written, written.replace("\\", "/"))]
    return next((path for path in paths if os.path.isfile(path)), paths[-1])


def require_crops(crops: Sequence[Crop]) -> None:
    """
    Raises:
        ConfigError: there are none.
    """
    if not crops:
        raise ConfigError("there are no images: name image files, folders, or a CSV with lines below its header")
