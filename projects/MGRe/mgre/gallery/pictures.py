"""What a search in a gallery has found, as a picture."""

import os
from collections.abc import Sequence

from PIL import Image, ImageDraw

from mgre.errors import printable
from mgre.gallery.gallery import Match
from mgre.reading.images import ImageError, load_image
from mgre.tiles import (
    EMPTY,
    FAINT,
    FRAME,
    GAP,
    GROUND,
    INK,
    NEUTRAL,
    QUERY,
    TEXT,
    TILE,
    fit_tile,
    paste_tile,
    write_line,
)

_STEP = TILE[0] + 2 * FRAME + GAP
# Lines below an image: its rank and distance, its id, and its camera and time.
_LINES = 3


def draw_matches(query: str, path: str | None, matches: Sequence[Match]) -> Image.Image:
    """A query on the left, and the entries that were found, nearest first, each with its rank, distance and id.

    Where an image is not there any more its tile is empty: a gallery outlives the images.

    Args:
        query: its path or id, for the title.
        path: of its image; None where it is not known.
        matches: what :meth:`mgre.gallery.Gallery.search` gives for the query.
    """
    width = GAP + (1 + len(matches)) * _STEP + GAP
    sheet = Image.new("RGB", (max(width, 4 * _STEP), 2 * GAP + TEXT + TILE[1] + 2 * FRAME + _LINES * TEXT), GROUND)
    draw = ImageDraw.Draw(sheet)
    write_line(draw, (GAP, GAP), printable(os.path.basename(query)), INK, sheet.width - GAP)
    top = GAP + TEXT
    below = top + TILE[1] + 2 * FRAME
    paste_tile(sheet, _tile(path), (GAP, top), QUERY)
    write_line(draw, (GAP + FRAME, below), "query", FAINT, GAP + _STEP)
    for rank, match in enumerate(matches, start=1):
        left = 2 * GAP + rank * _STEP
        paste_tile(sheet, _tile(match.entry.path), (left, top), NEUTRAL)
        seen = " ".join(filter(None, (match.entry.camera, match.entry.time)))
        for number, text in enumerate((f"{rank}   {match.distance:.3f}", match.entry.id, seen)):
            line = (left + FRAME, below + number * TEXT)
            write_line(draw, line, printable(text), FAINT if number else INK, left + _STEP)
    return sheet


def _tile(path: str | None) -> Image.Image:
    try:
        return fit_tile(load_image(path)) if path else Image.new("RGB", TILE, EMPTY)
    except ImageError:
        return Image.new("RGB", TILE, EMPTY)
