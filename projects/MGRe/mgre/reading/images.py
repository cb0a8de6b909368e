"""Image files, decoded to RGB with 8 bits a channel: one decoder for training, evaluation, key points and tools."""

import os
from typing import cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from mgre.errors import DataError
from mgre.system.file_kinds import foreign_kind

# What transparent pixels show: black, like the pixels that INPUT.PADDING adds.
GROUND = (0, 0, 0)
# Photographs of 16 bits use the whole range. Sensors of fewer bits (12 of depth cameras, 14 of thermal ones) do not.
_WHITE_16_BITS, _LEAST_MAXIMUM = 65535, 1 << 14
# TIFF's tags, and its value for "0 is white".
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


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
    """Read an image as RGB with 8 bits a channel, turned by its EXIF orientation.

    Grey images of more bits are scaled, so that their white becomes 255; Pillow's own conversion clips them at 255.
    Transparent pixels show :data:`GROUND`, half-transparent ones a mixture with it; a file's hidden colours show in no
    image viewer. Of several frames the first is taken.

    Raises:
        UnreadableImageError: the file is missing, empty, cut short or not an image.
        ImageError: which value is white in an image of more than 8 bits is not certain.
    """
    try:
        # Given a path, Pillow maps uncompressed files into memory, and mixes up the pixels of a TIFF on its side.
        with open(path, "rb") as file, Image.open(file) as image:
            image.load()
            if has_more_than_8_bits(image):
                return _scale(image, path).convert("RGB")
            return _to_rgb(_upright(image))
    except ImageError:
        raise
    except Exception as error:  # decoders raise many kinds of errors, and each means that this file is at fault
        raise UnreadableImageError(f"Image '{path}' {_fault(path, error)}; {_remedy(path)}") from error


def has_more_than_8_bits(image: Image.Image) -> bool:
    """Whether :func:`load_image` has to scale the pixels; the header of the image is enough to tell."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _to_rgb(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    on_ground = Image.new("RGB", image.size, GROUND)
    on_ground.paste(image, mask=image.getchannel("A"))
    return on_ground


def _scale(image: Image.Image, path: str) -> Image.Image:
    """A grey image of more than 8 bits, upright and with 8 bits."""
    white, is_declared, is_inverted = _white_value(image)
    transparent = image.info.get("transparency")
    values = np.asarray(_upright(image))
    lowest, highest = float(values.min()), float(values.max())
    if white is None:
        # Numbers of 32 bits have no white. Those of an image of 8 bits are taken; others may be distances or degrees.
        if lowest < 0 or not (1 < highest <= 255 or highest == 0):
            raise ImageError(
                f"Image '{path}' has {'floating-point numbers' if image.mode == 'F' else 'numbers of 32 bits'} from "
                f"{lowest:g} to {highest:g} as pixels, and does not say which is white; scale all images of the data "
                "set alike, to 8 bits a pixel"
            )
        white = 255
    elif not is_declared and 0 < highest < _LEAST_MAXIMUM:
        raise ImageError(
            f"Image '{path}' has 16 bits a pixel, but no value above {highest:g}: its sensor has fewer bits, and the "
            "image would be nearly black; scale all images of the data set alike, to 8 bits a pixel or so that white "
            "is 65535"
        )
    scaled = (values.astype(np.float64) * (255 / white) + 0.5).astype(np.uint8)
    if is_inverted:
        scaled = 255 - scaled
    if isinstance(transparent, int):
        scaled[values == transparent] = GROUND[0]
    return Image.fromarray(scaled)


def _white_value(image: Image.Image) -> tuple[int | None, bool, bool]:
    """The value of white, or None where there is none; whether the file itself says so; and whether 0 is white instead,
    which Pillow takes care of in files of 8 bits only."""
    if image.format == "PPM":  # Pillow scales by the file's own largest value
        return _WHITE_16_BITS, True, False
    if image.format == "TIFF" and image.mode.startswith("I;16"):
        tags = cast(TiffImageFile, image).tag_v2
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        return (1 << bits) - 1, bits != 16, tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if image.mode == "F" or image.format == "TIFF":
        return None, False, False
    return _WHITE_16_BITS, False, False


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels may be good although the EXIF data are damaged
        return image


def _remedy(path: str) -> str:
    if not os.path.exists(path):
        return "mend the path, copy it again, or leave it out"
    if os.path.isdir(path):
        return "name an image file"
    return "copy it again or leave it out"


def _fault(path: str, error: Exception) -> str:
    if not os.path.exists(path):
        return "does not exist"
    if os.path.getsize(path) == 0:
        return "is empty (0 bytes)"
    if kind := foreign_kind(path):
        return f"is {kind}"
    if isinstance(error, UnidentifiedImageError):
        return "cannot be read (it is no image of a kind that Pillow knows)"
    reason = " ".join(str(error).split())
    return f"cannot be read ({reason})"
