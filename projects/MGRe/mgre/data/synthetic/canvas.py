"""A picture to draw on. It records which part covers each pixel, so the visibility of key points is exact."""

from collections.abc import Callable
from math import ceil, floor

import cv2
import numpy as np

# Fractional bits of OpenCV's fixed-point coordinates.
_SHIFT = 4
_CIRCLE = np.stack([(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 16, endpoint=False)])


class Canvas:
    """An RGB picture and its part map.

    Points are (x, y) in pixels of the canvas, whose top left corner is (0, 0): the centre of the first pixel is
    (0.5, 0.5). Every shape is drawn with a colour and the number of the part it belongs to.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        parts: (H, W) uint8, the part drawn last at each pixel; 0 is the background.
    """

    def __init__(self, background: np.ndarray) -> None:
        self.image = np.ascontiguousarray(background)
        self.parts: np.ndarray = np.zeros(background.shape[:2], np.uint8)

    def polygon(self, points: np.ndarray, colour: tuple[float, float, float], part: int) -> None:
        """Fill the convex hull of ``points`` (N, 2)."""
        # OpenCV puts whole numbers at the centres of pixels.
        fixed = np.round((np.asarray(points) - 0.5) * (1 << _SHIFT)).astype(np.int32)
        hull = cv2.convexHull(fixed.reshape(-1, 1, 2))
        cv2.fillConvexPoly(self.image, hull, tuple(float(c) for c in colour), cv2.LINE_AA, _SHIFT)
        cv2.fillConvexPoly(self.parts, hull, part, cv2.LINE_8, _SHIFT)

    def capsule(
        self,
        start: np.ndarray,
        end: np.ndarray,
        radii: tuple[float, float],
        colour: tuple[float, float, float],
        part: int,
    ) -> None:
        """Fill the hull of a disc about ``start`` and one about ``end``."""
        self.polygon(np.concatenate((start + radii[0] * _CIRCLE, end + radii[1] * _CIRCLE)), colour, part)

    def ellipse(
        self, center: np.ndarray, half: tuple[float, float], colour: tuple[float, float, float], part: int
    ) -> None:
        """Fill an upright ellipse with half axes ``half`` (x, y)."""
        self.polygon(center + np.asarray(half) * _CIRCLE, colour, part)

    def shade(
        self,
        box: tuple[float, float, float, float],
        shader: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
        part: int,
    ) -> None:
        """Colour pixels one by one: ``shader`` gets the x and y of the centres of the pixels inside ``box``.

        Args:
            box: (x_min, y_min, x_max, y_max); pixels outside the canvas are left out.
            shader: from x, y, each (h, w), to a mask (h, w) of the N pixels to colour and their colours (N, 3).
        """
        height, width = self.parts.shape
        left, right = max(floor(box[0]), 0), min(ceil(box[2]), width)
        top, bottom = max(floor(box[1]), 0), min(ceil(box[3]), height)
        if left >= right or top >= bottom:
            return
        x, y = np.meshgrid(np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32))
        mask, colours = shader(x + 0.5, y + 0.5)
        self.image[top:bottom, left:right][mask] = np.clip(colours, 0, 255).astype(np.uint8)
        self.parts[top:bottom, left:right][mask] = part

    def part_at(self, point: np.ndarray) -> int | None:
        """The part that covers the pixel of ``point``, or None outside the canvas."""
        column, row = floor(point[0]), floor(point[1])
        if not (0 <= row < self.parts.shape[0] and 0 <= column < self.parts.shape[1]):
            return None
        return int(self.parts[row, column])
