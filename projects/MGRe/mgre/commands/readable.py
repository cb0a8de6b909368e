"""Images that cannot be read, among those that a command is given: they are named and left out."""

import sys
from collections.abc import Iterable, Iterator

from PIL import Image

from mgre.errors import printable
from mgre.inference.preparation import to_image
from mgre.reading.images import ImageError

# The exit status of a command that has left images out.
SKIPPED = 3


def readable(paths: Iterable[str], skipped: list[str]) -> Iterator[Image.Image]:
    """The images that can be read; the paths of the others are put into ``skipped``, and named on stderr."""
    for path in paths:
        try:
            image = to_image(path)
        except ImageError as error:
            skipped.append(path)
            print(f"left out: {printable(str(error))}", file=sys.stderr)
        else:
            yield image
