"""Pictures of what a model sees in two images, drawn by Pillow alone.

Legend: boxes are (x_min, y_min, x_max, y_max), normalised by the image's width and height, x to the right, y down.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mgre.colors import COLORS
from mgre.errors import SetupError
from mgre.inference.similarity import CONSTANT, Share
from mgre.system.files import explain_unwritable, write_atomically

# Sizes in pixels.
HEIGHT, MOST_WIDTH = 416, 312  # of a crop
_MARGIN, _ROW, _TITLE, _LINE = 16, 24, 44, 3
_NAME, _BAR, _NUMBER = 150, 260, 64  # the columns of the table of shares
_BADGE = 16
_TEXT, _SMALL = 20, 13

_GROUND, _INK, _FAINT = "#1e1e1e", "#f0f0f0", "#9a9a9a"


def draw_pair(
    images: Sequence[Image.Image],
    boxes: Sequence[Mapping[str, np.ndarray]],
    shares: Sequence[Share],
    *,
    title: str,
    captions: Sequence[str] = ("", ""),
) -> Image.Image:
    """Two crops side by side with their regions' boxes, and beside them each region's share as a bar.

    A region has one colour and one number in both crops and in the table. Bars of shares that speak for the same
    person point to the right; those against it point to the left and are hollow.

    Args:
        images: the two crops, RGB.
        boxes: of each crop, a box (4,) for each region by its name. They are cut at the image's border.
        shares: see :func:`mgre.inference.similarity.pair_shares`; none for models without regions.
        title: a line above the crops.
        captions: a line below each crop.
    """
    names = list(boxes[0])
    crops = [_draw_boxes(_fit(image), list(own.values())) for image, own in zip(images, boxes, strict=True)]
    table = _draw_shares(shares, names) if shares else None
    parts = [*crops, *([table] if table else [])]
    title_width = round(_font(_TEXT).getlength(title))
    width = max(sum(part.width + _MARGIN for part in parts), title_width + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", (width, _TITLE + max(part.height for part in parts) + _ROW + _MARGIN), _GROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _TITLE / 2), title, fill=_INK, font=_font(_TEXT), anchor="lm")
    x = _MARGIN
    notes = (*captions, "left and hollow: lowers the cosine")[: len(parts)]
    for part, caption in zip(parts, notes, strict=True):
        sheet.paste(part, (x, _TITLE))
        draw.text((x, _TITLE + part.height + 4), _shorten(caption, part.width), fill=_FAINT, font=_font(_SMALL))
        x += part.width + _MARGIN
    return sheet


def save_picture(picture: Image.Image, path: str, *, remedy: str = "make room, or name another file") -> None:
    """Write a picture, in the format of the path's suffix.

    Args:
        picture: the picture.
        path: of the file; an existing one is replaced.
        remedy: what to do where it cannot be written, for the message.

    Raises:
        SetupError: it cannot be written there, or the suffix is none of a picture.
    """
    Image.init()
    suffix = path[path.rfind(".") :].lower() if "." in path else ""
    if Image.EXTENSION.get(suffix) not in Image.SAVE:
        raise SetupError(f"picture '{path}' does not end like a picture; allowed: a name like pair.png or pair.jpg")
    with explain_unwritable(f"picture '{path}'", remedy), write_atomically(path) as unfinished:
        picture.save(unfinished, format=Image.EXTENSION[suffix])


def _fit(image: Image.Image) -> Image.Image:
    scale = min(HEIGHT / image.height, MOST_WIDTH / image.width)
    width, height = (max(1, round(scale * side)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _draw_boxes(crop: Image.Image, boxes: Sequence[np.ndarray]) -> Image.Image:
    """Boxes of the regions' colours, each with the region's number at a corner."""
    draw = ImageDraw.Draw(crop)
    limits = np.array(crop.size * 2)
    drawn: list[np.ndarray] = []
    for index, box in enumerate(boxes):
        edges = np.clip(np.round(box * limits), 0, limits - 1)
        # A box that lies on an earlier one is drawn a little smaller, inside of it.
        while any(np.abs(edges - other).max() < _LINE for other in drawn):
            edges = edges + _LINE * np.array((1, 1, -1, -1))
        drawn.append(edges)
        if _has_area(edges):
            draw.rectangle(tuple(edges), outline=_color(index), width=_LINE)
    badges: list[tuple[int, int]] = []
    for index, edges in enumerate(drawn):
        if _has_area(edges):
            badges.append(_place_badge(edges, badges, crop.size))
            _draw_badge(draw, badges[-1], index)
    return crop


def _has_area(edges: np.ndarray) -> bool:
    return bool(edges[0] < edges[2] and edges[1] < edges[3])


def _place_badge(edges: np.ndarray, taken: Sequence[tuple[int, int]], size: tuple[int, int]) -> tuple[int, int]:
    """The upper left corner of a badge: a corner of the box, or the first place below one, that is free."""
    left, top, right, bottom = (int(edge) for edge in edges)
    corners = [(left, top), (right - _BADGE, top), (left, bottom - _BADGE), (right - _BADGE, bottom - _BADGE)]
    below = [(x, top + step) for step in range(_BADGE, size[1], _BADGE) for x in (left, right - _BADGE)]
    inside = [
        (max(0, min(x, size[0] - 1 - _BADGE)), max(0, min(y, size[1] - 1 - _BADGE))) for x, y in (*corners, *below)
    ]
    free = (
        place for place in inside if all(abs(place[0] - x) >= _BADGE or abs(place[1] - y) >= _BADGE for x, y in taken)
    )
    return next(free, inside[0])


def _draw_badge(draw: ImageDraw.ImageDraw, place: tuple[float, float], index: int) -> None:
    x, y = place
    draw.rectangle((x, y, x + _BADGE - 1, y + _BADGE - 1), fill=_color(index))
    draw.text((x + _BADGE / 2, y + _BADGE / 2), str(index + 1), fill="#000000", font=_font(_SMALL), anchor="mm")


def _draw_shares(shares: Sequence[Share], names: Sequence[str]) -> Image.Image:
    """A row for each share: the region's badge and name, its bar, and the number; last the sum."""
    step = max(_ROW, HEIGHT // (len(shares) + 1))
    table = Image.new("RGB", (_NAME + _BAR + _NUMBER, step * (len(shares) + 1)), _GROUND)
    draw = ImageDraw.Draw(table)
    lowest, highest = (choose(0.0, *(share.value for share in shares)) for choose in (min, max))
    scale = _BAR / ((highest - lowest) or 1.0)
    zero = _NAME - lowest * scale
    for row, share in enumerate(shares):
        middle = step * row + step / 2
        index = names.index(share.region) if share.region in names else None
        if index is not None:
            _draw_badge(draw, (0, middle - _BADGE / 2), index)
        name = f"{share.stage.replace('stage', 'stage ')} constant" if share.region == CONSTANT else share.region
        ink = _FAINT if share.region == CONSTANT else _INK
        draw.text((_BADGE + 8, middle), name.replace("_", " "), fill=ink, font=_font(_SMALL), anchor="lm")
        end, color = zero + share.value * scale, _FAINT if index is None else _color(index)
        bar = (min(zero, end), middle - 7, max(zero, end), middle + 7)
        if share.value > 0:
            draw.rectangle(bar, fill=color)
        else:
            draw.rectangle(bar, outline=color, width=2)
        _draw_number(draw, share.value, middle)
    draw.line((zero, 0, zero, step * len(shares)), fill=_INK)
    middle = step * len(shares) + step / 2
    draw.text((_BADGE + 8, middle), "sum: the cosine", fill=_INK, font=_font(_SMALL), anchor="lm")
    _draw_number(draw, sum(share.value for share in shares), middle)
    return table


def _draw_number(draw: ImageDraw.ImageDraw, value: float, middle: float) -> None:
    draw.text((_NAME + _BAR + _NUMBER, middle), f"{value:+.3f}", fill=_INK, font=_font(_SMALL), anchor="rm")


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shorten(text: str, width: int) -> str:
    """The end of a text that is wider than ``width``: of a path, the file's name."""
    font, start = _font(_SMALL), 0
    while start < len(text) and font.getlength(text[start:] if not start else f"...{text[start:]}") > width:
        start += 1
    return text if not start else f"...{text[start:]}"
