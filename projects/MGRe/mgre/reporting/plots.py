"""Plots as inline SVG, in the colours that the page's style gives to the classes.

Legend: P points of a line; K bins. A series is named by the class of its colour: see ``report.html``.
"""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 560, 300
# Space for labels, in the SVG's units: left, top, right, bottom.
MARGINS = (54, 12, 14, 44)
# Number of intervals on an axis, about.
NUM_TICKS = 5


class _Axes:
    """From values to places in the picture: x to the right, y up in values and down in the picture."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        left, top, right, bottom = MARGINS
        self.x_range, self.y_range = x_range, y_range
        self._x = left, WIDTH - right
        self._y = HEIGHT - bottom, top

    def x(self, value: float) -> float:
        return self._at(value, self.x_range, self._x)

    def y(self, value: float) -> float:
        return self._at(value, self.y_range, self._y)

    @staticmethod
    def _at(value: float, span: tuple[float, float], place: tuple[float, float]) -> float:
        share = (value - span[0]) / (span[1] - span[0])
        return round(place[0] + share * (place[1] - place[0]), 1)

    def draw(self, x_label: str, y_label: str, x_ticks: Sequence[float]) -> Markup:
        (left, right), (bottom, top) = self._x, self._y
        parts = []
        for value in ticks(*self.y_range):
            y = self.y(value)
            parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(left, y, right))
            parts.append(Markup('<text x="{}" y="{}" class="end">{}</text>').format(left - 8, y + 4, f"{value:g}"))
        for value in x_ticks:
            x = self.x(value)
            parts.append(Markup('<path class="axis" d="M{} {}v5"/>').format(x, bottom))
            parts.append(Markup('<text x="{}" y="{}" class="middle">{}</text>').format(x, bottom + 18, f"{value:g}"))
        parts.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(left, bottom, right))
        middle = (left + right) / 2
        parts.append(Markup('<text x="{}" y="{}" class="middle">{}</text>').format(middle, HEIGHT - 6, x_label))
        upright = Markup('<text transform="translate(13 {}) rotate(-90)" class="middle">{}</text>')
        parts.append(upright.format((top + bottom) / 2, y_label))
        return Markup("").join(parts)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, some :data:`NUM_TICKS` intervals apart: 1, 2 or 5 times a power of 10."""
    rough = (high - low) / NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, digits) for number in range(first, last + 1)]


def line_plot(
    lines: Mapping[str, Sequence[float]], *, title: str, x_label: str, y_label: str, y_range: tuple[float, float]
) -> Markup:
    """Lines through P points each, at x = 1, 2, ..., P.

    Args:
        lines: the P values y, by the series' name.
        title: what a screen reader says.
        x_label, y_label: with units.
        y_range: of the axis.
    """
    length = max(map(len, lines.values()))
    axes = _Axes((1, max(2, length)), y_range)
    parts = [axes.draw(x_label, y_label, [1, *(value for value in ticks(*axes.x_range) if value > 1)])]
    for name, values in lines.items():
        points = " ".join(f"{axes.x(number)},{axes.y(value)}" for number, value in enumerate(values, start=1))
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(css_class(name), points))
    return _svg(title, parts)


def histogram(
    edges: Sequence[float],
    shares: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    marks: Mapping[str, float],
) -> Markup:
    """Histograms over each other.

    Args:
        edges: (K + 1,).
        shares: (K,), by the series' name.
        title: what a screen reader says.
        x_label, y_label: with units.
        marks: upright lines, by their text.
    """
    x_range = (min([edges[0], *marks.values()]), max([edges[-1], *marks.values()]))
    axes = _Axes(x_range, (0, 1.05 * max((max(values) for values in shares.values()), default=1) or 1))
    parts = [axes.draw(x_label, y_label, ticks(*x_range))]
    for name, values in shares.items():
        steps = [f"M{axes.x(edges[0])} {axes.y(0)}"]
        for value, right in zip(values, edges[1:], strict=True):
            steps.append(f"V{axes.y(value)}H{axes.x(right)}")
        parts.append(Markup('<path class="area {}" d="{}V{}Z"/>').format(css_class(name), "".join(steps), axes.y(0)))
    texts = []
    for number, (text, value) in enumerate(marks.items()):
        x, top = axes.x(value), MARGINS[1] + 16 * number  # one text below the other
        parts.append(Markup('<path class="mark" d="M{} {}V{}"/>').format(x, top, axes.y(0)))
        side, shift = ("end", -6) if x > WIDTH / 2 else ("start", 6)
        texts.append(Markup('<text x="{}" y="{}" class="label {}">{}</text>').format(x + shift, top + 12, side, text))
    parts += texts  # over all lines
    return _svg(title, parts)


def css_class(series: str) -> str:
    """The class of a series' colour: "re-ranked" stays, "other people" becomes "other-people"."""
    return "series-" + "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in series)


def _svg(title: str, parts: Sequence[Markup]) -> Markup:
    frame = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return frame.format(WIDTH, HEIGHT, title, Markup("").join(parts))
