"""Rank lists as pictures.

A query is on the left, with a blue frame. The gallery's images follow, nearest first: with a green frame what shows the
query's identity, with a red one what does not. Sizes are in pixels, (width, height).
"""

import base64
import io
import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from mgre.errors import printable
from mgre.reading.images import load_image
from mgre.reporting.rank_lists import RankList
from mgre.tiles import FAINT, FRAME, GAP, GROUND, INK, QUERY, TEXT, TILE, fit_tile, paste_tile, small_font, write_line
from mgre.visualization import add_legend, draw_regions

# Boxes of an image's regions, (R, 4), (x_min, y_min, x_max, y_max), normalised by its width and height, by its path.
Boxes = Mapping[str, np.ndarray]

MATCH, OTHER = "#1a9850", "#d73027"
THUMBNAIL, QUALITY = (72, 144), 82


def draw_rank_list(
    shown: RankList, *, boxes: Boxes | None = None, regions: Sequence[str] = (), title: str = ""
) -> Image.Image:
    """A query and its rank lists, one below the other.

    Args:
        shown: the query.
        boxes: to draw on the images.
        regions: names of the boxes' regions, in their order, for a legend.
        title: what comes before the file name.

    Raises:
        ImageError: an image cannot be read.
    """
    boxes = boxes or {}
    # A first match that comes after the list stands behind an empty place.
    length = max(len(order.images) + 2 * (order.first_match is not None) for order in shown.orders.values())
    step = TILE[0] + 2 * FRAME + GAP
    row = TEXT + TILE[1] + 2 * FRAME + TEXT + GAP
    width = GAP + step + GAP + length * step
    sheet = Image.new("RGB", (max(width, 480), 2 * TEXT + GAP + row * len(shown.orders)), GROUND)
    draw = ImageDraw.Draw(sheet)
    write_line(draw, (GAP, 6), f"{title}{printable(os.path.basename(shown.path))}", INK, sheet.width - GAP)
    matches = f"{shown.num_matches} {'match' if shown.num_matches == 1 else 'matches'} in the gallery"
    seen = f"identity {shown.identity}, camera {shown.camera}, {matches}"
    write_line(draw, (GAP, 6 + TEXT), seen, FAINT, sheet.width)
    for number, (name, order) in enumerate(shown.orders.items()):
        top = 2 * TEXT + GAP + number * row
        first = f"first match at rank {order.first_rank}" if order.first_rank else "no match"
        text = f"{name}: {first}" + (f", average precision {order.precision:.1f} %" if order.first_rank else "")
        write_line(draw, (GAP + step + GAP, top), text, INK, sheet.width)
        paste_tile(sheet, _tile(shown.path, boxes), (GAP, top + TEXT), QUERY)
        write_line(draw, (GAP + FRAME, top + TEXT + TILE[1] + 2 * FRAME + 2), "query", FAINT, sheet.width)
        ranked = list(enumerate(order.images, start=1))
        ranked += [(order.first_rank, order.first_match)] if order.first_match is not None else []
        for rank, image in ranked:
            place = rank - 1 if rank <= len(order.images) else len(order.images) + 1
            left = GAP + step + GAP + place * step
            color = MATCH if image.is_match else OTHER
            paste_tile(sheet, _tile(image.path, boxes), (left, top + TEXT), color)
            at = left + FRAME, top + TEXT + TILE[1] + 2 * FRAME + 2
            write_line(draw, at, f"{rank}  {'match' if image.is_match else 'other'}", color, sheet.width)
            distance = f"{image.distance:.3f}"
            right = left + step - GAP - FRAME - draw.textlength(distance, font=small_font())
            write_line(draw, (right, at[1]), distance, FAINT, sheet.width)
    return add_legend(sheet, regions) if regions else sheet


def fitting(pictures: Sequence[Image.Image], most_height: int) -> int:
    """How many of the pictures, the first one at least, :func:`stack` makes at most ``most_height`` of."""
    heights = np.cumsum([picture.height + 1 for picture in pictures])
    return max(1, int((heights <= most_height).sum()))


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures below each other, with lines between them."""
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height + 1 for p in pictures)), "#c8ccd2")
    top = 0
    for picture in pictures:
        sheet.paste(GROUND, (0, top, sheet.width, top + picture.height))
        sheet.paste(picture, (0, top))
        top += picture.height + 1
    return sheet


def thumbnail_uri(path: str) -> str:
    """A small copy of an image as the text of a ``data:`` address, in JPEG.

    Raises:
        ImageError: the image cannot be read.
    """
    buffer = io.BytesIO()
    ImageOps.contain(load_image(path), THUMBNAIL).save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _tile(path: str, boxes: Boxes) -> Image.Image:
    """The image of :data:`TILE`'s size, in its own proportions, with what boxes there are."""
    image = ImageOps.contain(load_image(path), TILE)
    if path in boxes:
        image = to_pil_image(draw_regions(pil_to_tensor(image), torch.from_numpy(boxes[path]), scale=1))
    return fit_tile(image)
