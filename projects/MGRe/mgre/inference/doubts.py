"""Images that a model takes, but whose features mean little."""

import numpy as np
from PIL import Image

from mgre.record import ModelRecord

# An image whose height or width the model would enlarge by more than this has hardly any detail.
LARGEST_ENLARGEMENT = 4
# Grey images that have been through JPEG in colour have channels that differ by no more.
_GREY_DIFFERENCE = 3


def doubts(image: Image.Image, record: ModelRecord) -> list[str]:
    """What speaks against trusting the feature of an image, in words; most often nothing.

    Args:
        image: RGB.
        record: of the model.
    """
    found = []
    if is_small(image.height, image.width, record):
        height, width = record.input_size
        found.append(
            f"has {image.width} x {image.height} pixels (width x height), and the model takes {width} x {height}: too "
            "few to tell people apart"
        )
    if is_grey(np.asarray(image)):
        found.append("is grey, and the model looks at colours: scores against other images are too low")
    return found


def is_small(height: int, width: int, record: ModelRecord) -> bool:
    """Whether an image of this size has too few pixels for the model with this record."""
    wanted_height, wanted_width = record.input_size
    return height * LARGEST_ENLARGEMENT < wanted_height or width * LARGEST_ENLARGEMENT < wanted_width


def is_grey(pixels: np.ndarray) -> bool:
    """Whether pixels (H, W, 3) of uint8 have no colour."""
    red, green, blue = np.moveaxis(pixels, 2, 0)
    difference = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return int(difference.max()) <= _GREY_DIFFERENCE
