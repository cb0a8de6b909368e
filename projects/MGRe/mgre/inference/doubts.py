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
    height, width = record.input_size
    if image.height * LARGEST_ENLARGEMENT < height or image.width * LARGEST_ENLARGEMENT < width:
        found.append(
            f"has {image.width} x {image.height} pixels (width x height), and the model takes {width} x {height}: too "
            "few to tell people apart"
        )
    channels = np.asarray(image, dtype=np.int16)
    if (channels.max(axis=2) - channels.min(axis=2)).max() <= _GREY_DIFFERENCE:
        found.append("is grey, and the model looks at colours: scores against other images are too low")
    return found
