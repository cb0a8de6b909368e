"""Image files, decoded to RGB."""

import os

from PIL import Image, ImageOps

from mgre.errors import DataError


class ImageError(DataError):
    """An image cannot be read, does not fit its key points, or has ended the process that loaded it.

    A DataLoader constructs a worker's exception anew, with the text of the worker's traceback as the message. Only the
    last line of the text, the original message, is kept.
    """

    def __init__(self, message: str) -> None:
        last_line = message.rstrip().rsplit("\n", 1)[-1]
        super().__init__(last_line.removeprefix(f"{__name__}.{type(self).__name__}: "))


class UnreadableImageError(ImageError):
    """An image is missing, empty, cut short or no image."""


def load_image(path: str) -> Image.Image:
    """Read an image as RGB, turned by its EXIF orientation.

    Not by the toolbox's ``read_image``, which ignores decoding errors and gives black pixels for damaged ones.

    Raises:
        UnreadableImageError: the file is missing, empty, cut short or not an image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return _upright(image).convert("RGB")
    except Exception as error:  # decoders raise many kinds of errors, and each means that this file is at fault
        raise UnreadableImageError(
            f"Image '{path}' {_fault(path, error)}; copy it again or remove it from the data set"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels may be good although the EXIF data are damaged
        return image


def _fault(path: str, error: Exception) -> str:
    if not os.path.exists(path):
        return "does not exist"
    if os.path.getsize(path) == 0:
        return "is empty (0 bytes)"
    reason = " ".join(str(error).split())
    return f"cannot be read ({reason})"
