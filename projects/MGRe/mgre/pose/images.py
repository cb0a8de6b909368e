"""Finds the image files below a folder, and the reasons why an image cannot have key points."""

import os
from collections.abc import Iterator
from typing import cast

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

from mgre.errors import DataError
from mgre.reading.image_files import is_hidden, is_image_name
from mgre.reading.images import ImageError, load_image

# An image with a side of fewer pixels cannot show a person.
MIN_SIDE = 2


def find_images(folder: str, *, _above: tuple[str, ...] = ()) -> Iterator[str]:
    """The paths of all images in ``folder`` and below; links are followed, hidden files and folders left out.

    Raises:
        DataError: a folder cannot be read.
    """
    real = os.path.realpath(folder)
    if real in _above:  # a link that leads back up
        return
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"folder '{folder}' cannot be read ({error.strerror}): mend the path or its permissions"
        ) from error
    for entry in entries:
        if is_hidden(entry.name):
            continue
        if entry.is_dir():
            yield from find_images(entry.path, _above=(*_above, real))
        elif is_image_name(entry.name):
            yield entry.path


def load_crop(path: str, name: str) -> np.ndarray | str:
    """The crop (H, W, 3), RGB uint8, or the reason why the image ``path`` cannot have key points.

    Args:
        name: the image's ``file_name`` in the key point file.
    """
    if fault := name_fault(name):
        return fault
    try:
        crop = np.asarray(load_image(path))
    except ImageError as error:
        return str(error)
    return size_fault(path, crop.shape[:2]) or crop


def image_size(path: str) -> tuple[int, int]:
    """(H, W) of an image, turned by its EXIF orientation, from the file's header alone.

    Raises:
        ImageError: the header cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.format == "TIFF":  # the size of such an image is that of the turned one already
                tags = cast(TiffImageFile, image).tag_v2
                width, height = (tags[tag] for tag in (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength))
            turned = _orientation(image) >= 5
    except Exception as error:  # decoders raise many kinds of errors, and each means that this file is at fault
        reason = " ".join(str(error).split())
        raise ImageError(f"Image '{path}' cannot be read ({reason}); copy it again or leave it out") from error
    return (width, height) if turned else (height, width)


def name_fault(name: str) -> str:
    """The fault of a ``file_name``, or the empty string."""
    try:
        name.encode()
    except UnicodeEncodeError:  # Python keeps bytes that are not UTF-8 as lone surrogates
        return f"Image {name!a} has a name that is not UTF-8, which JSON cannot hold; rename it"
    return ""


def size_fault(path: str, size: tuple[int, int]) -> str:
    """The fault of the (H, W) of the image ``path``, or the empty string."""
    return f"Image '{path}' has {size[1]} x {size[0]} pixels" if min(size) < MIN_SIDE else ""


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the pixels may be good although the EXIF data are damaged
        return 1
