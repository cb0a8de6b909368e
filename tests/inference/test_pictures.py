import numpy as np
import pytest
from mgre.colors import COLORS
from mgre.errors import SetupError
from mgre.inference.pictures import HEIGHT, MOST_WIDTH, draw_pair, save_picture
from mgre.inference.similarity import CONSTANT, Share
from PIL import Image, ImageColor

GREEN = (0, 90, 0)
BOXES = {"head": np.array([0.3, 0.0, 0.7, 0.2]), "legs": np.array([0.2, 0.5, 0.8, 1.4])}
SHARES = [Share("stage1", "head", 0.3), Share("stage1", "legs", -0.1), Share("stage1", CONSTANT, 0.2)]


def draw(shares=SHARES, boxes=BOXES, sizes=((32, 64), (32, 64))):
    return draw_pair([Image.new("RGB", size, GREEN) for size in sizes], [boxes, boxes], shares, title="cosine 0.400")


def places(picture, color):
    """(K, 2), y and x of the pixels of a colour."""
    return np.argwhere((np.asarray(picture) == ImageColor.getrgb(color)).all(axis=2))


def crops_of(picture):
    """The left edges of the two crops, and the top edge."""
    green = np.argwhere((np.asarray(picture) == GREEN).all(axis=2))
    columns = np.unique(green[:, 1])
    return columns[0], columns[np.flatnonzero(np.diff(columns) > 8)[0] + 1], green[:, 0].min()


def test_both_crops_have_the_boxes_in_the_regions_colours():
    picture = draw()
    first, second, top = crops_of(picture)
    width = HEIGHT // 2
    for color, box in zip(COLORS, BOXES.values(), strict=False):
        found = places(picture, color)
        x_min, y_min, x_max, y_max = np.clip(box, 0, 1) * (width, HEIGHT, width, HEIGHT)
        for left in (first, second):
            inside = found[(found[:, 1] >= left) & (found[:, 1] < left + width)] - (top, left)
            np.testing.assert_allclose(inside.min(axis=0), (y_min, x_min), atol=2)
            np.testing.assert_allclose(inside.max(axis=0), (y_max, x_max), atol=2)


def test_bars_are_as_long_as_the_shares_and_point_to_their_side():
    picture = draw()
    crops_end = crops_of(picture)[1] + HEIGHT // 2
    ends, counts = [], []
    for color in COLORS[:2]:
        found = places(picture, color)
        row = found[found[:, 1] > crops_end + 40]  # right of the badge
        ends.append((row[:, 1].min(), row[:, 1].max()))
        counts.append(len(row) / (np.ptp(row[:, 0]) + 1) / (np.ptp(row[:, 1]) + 1))
    (head_left, head_right), (legs_left, legs_right) = ends
    assert abs(legs_right - head_left) <= 3  # both start at zero
    assert (head_right - head_left) / (legs_right - legs_left) == pytest.approx(3, rel=0.05)
    assert counts[0] > 0.95 and counts[1] < 0.6  # the negative bar is hollow


def test_equal_boxes_are_drawn_one_inside_the_other():
    same = {"legs": BOXES["head"], "lower_body": BOXES["head"]}
    picture = draw(shares=[], boxes=same)
    outer, inner = (places(picture, color) for color in COLORS[:2])
    assert (inner.min(axis=0) > outer.min(axis=0)).all() and len(inner) > 100


@pytest.mark.parametrize("size", [(1, 3), (500, 3), (3, 1), (64, 64), (1000, 2000)])
def test_images_of_any_size_fit(size):
    picture = draw(sizes=(size, (32, 64)))
    assert picture.height < HEIGHT + 120
    assert picture.width < 2 * MOST_WIDTH + 600


def test_without_regions_there_are_only_the_crops():
    assert draw(shares=[], boxes={}).width < draw().width - 300


def test_a_box_outside_the_image_is_not_drawn():
    outside = {"head": np.array([1.2, 0.1, 1.5, 0.3]), "legs": np.array([0.5, 0.5, 0.5, 0.9])}
    picture = draw(shares=[], boxes=outside)
    assert not len(places(picture, COLORS[0])) and not len(places(picture, COLORS[1]))


def test_a_picture_is_written_in_the_format_of_its_name(tmp_path):
    for name, kind in (("a.png", "PNG"), ("b.JPG", "JPEG")):
        save_picture(draw(), str(tmp_path / name))
        assert Image.open(tmp_path / name).format == kind


@pytest.mark.parametrize(
    ("name", "message"), [("a.txt", "like pair.png"), ("a", "like pair.png"), ("f/a.png", "written")]
)
def test_a_picture_that_cannot_be_written_is_one_line(tmp_path, name, message):
    (tmp_path / "f").write_text("a file")
    with pytest.raises(SetupError, match=message) as caught:
        save_picture(draw(), str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
