"""Pictures in a row with frames and captions, drawn by Pillow alone. Sizes are in pixels, (width, height)."""

import functools

from PIL import Image, ImageDraw, ImageFont, ImageOps

TILE, FRAME, GAP, TEXT = (96, 192), 4, 8, 18
GROUND, INK, FAINT, EMPTY = "#ffffff", "#1c1f23", "#6a7078", "#e8eaed"
# Of a query's frame, and of an image about whose identity nothing is known.
QUERY, NEUTRAL = "#3b6fd4", "#8a9099"


def fit_tile(image: Image.Image) -> Image.Image:
    """The image in :data:`TILE`'s size, in its own proportions."""
    return ImageOps.pad(ImageOps.contain(image, TILE), TILE, color=EMPTY)


def paste_tile(sheet: Image.Image, tile: Image.Image, at: tuple[int, int], color: str) -> None:
    """Paste a tile with a frame of this colour, whose upper left corner is ``at``."""
    sheet.paste(ImageOps.expand(tile, FRAME, color), at)


def write_line(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, color: str, limit: float) -> None:
    """Write a line, cut off before it reaches x = ``limit``."""
    font = small_font()
    while text and at[0] + draw.textlength(text, font=font) > limit:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    draw.text(at, text, fill=color, font=font)


@functools.cache
def small_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, of 12 pixels."""
    return ImageFont.load_default(12)
