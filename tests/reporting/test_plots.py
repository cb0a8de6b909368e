from xml.etree import ElementTree

import pytest
from mgre.reporting.plots import HEIGHT, MARGINS, WIDTH, css_class, histogram, line_plot, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (80, 100, [80, 85, 90, 95, 100]),
        (1, 50, [10, 20, 30, 40, 50]),
        (-0.62, 1.02, [-0.5, 0, 0.5, 1]),
        (0, 0.0031, [0, 0.001, 0.002, 0.003]),
    ],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert ticks(low, high) == expected


def texts(svg) -> list[str]:
    return [element.text for element in svg.iter("text")]


def test_a_line_goes_from_corner_to_corner():
    options = {"title": "t", "x_label": "rank", "y_label": "share, %", "y_range": (80.0, 100.0)}
    svg = ElementTree.fromstring(line_plot({"plain": [80.0, 90.0, 100.0], "re-ranked": [90.0]}, **options))
    left, top, right, bottom = MARGINS
    first, second = svg.findall("polyline")
    points = [tuple(map(float, point.split(","))) for point in first.get("points").split()]
    middle = (left + WIDTH - right) / 2, (top + HEIGHT - bottom) / 2
    assert points == [(left, HEIGHT - bottom), middle, (WIDTH - right, top)]
    assert first.get("class") == "line series-plain" and second.get("class") == "line series-re-ranked"
    assert {"rank", "share, %", "1", "3", "85"} <= set(texts(svg))


def test_a_histogram_has_a_bar_of_each_bin():
    shares = {"matches": [0.0, 40.0], "non-matches": [80.0, 20.0]}
    labels = {"title": "t", "x_label": "x", "y_label": "y"}
    svg = ElementTree.fromstring(histogram([0.0, 0.5, 1.0], shares, marks={"at <b>": 0.25}, **labels))
    left, top, right, bottom = MARGINS
    base, height = HEIGHT - bottom, (HEIGHT - bottom - top) / 84  # the axis ends 5 % above the highest bar
    middle, end = (left + WIDTH - right) / 2, float(WIDTH - right)
    path = svg.find("path[@class='area series-non-matches']").get("d")
    high, low = round(base - 80 * height, 1), round(base - 20 * height, 1)
    assert path == f"M{float(left)} {float(base)}V{high}H{middle}V{low}H{end}V{float(base)}Z"
    assert "at <b>" in texts(svg)  # escaped in the file
    assert svg.find("path[@class='mark']").get("d").startswith(f"M{round(left + (end - left) / 4, 1)} ")


def test_texts_are_escaped():
    svg = line_plot({"a": [1.0]}, title='"><script>', x_label="<b>", y_label="&", y_range=(0.0, 1.0))
    assert "<script>" not in svg and "<b>" not in svg and "&lt;b&gt;" in svg
    assert ElementTree.fromstring(svg).get("aria-label") == '"><script>'


def test_classes():
    assert css_class("re-ranked") == "series-re-ranked" and css_class('a" b') == "series-a--b"
