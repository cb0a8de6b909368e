import base64
import io

import numpy as np
import pytest
from mgre.errors import DataError
from mgre.reporting.pictures import (
    FRAME,
    GAP,
    MATCH,
    OTHER,
    QUERY,
    TEXT,
    THUMBNAIL,
    TILE,
    draw_rank_list,
    fitting,
    stack,
    thumbnail_uri,
)
from mgre.reporting.rank_lists import rank_lists
from PIL import Image, ImageColor

QUERY_COLOR, GALLERY_COLOR = (200, 0, 200), (0, 120, 200)
STEP = TILE[0] + 2 * FRAME + GAP


@pytest.fixture
def shown(make_evaluation):
    """The gallery's second image is the only match; the list has the first."""
    evaluation = make_evaluation([[0.1, 0.2, 0.3]], [1], [2, 1, 3], [0], [1, 1, 1], reranked=[[0.3, 0.1, 0.2]])
    return lambda length: rank_lists(evaluation, [0], length)[0]


def frame_and_middle(picture, place: int, row: int = 0) -> tuple:
    """The colours of the frame and of the middle of an image; place -1 is the query's."""
    left = GAP if place < 0 else GAP + STEP + GAP + place * STEP
    top = 2 * TEXT + GAP + row * (2 * TEXT + TILE[1] + 2 * FRAME + GAP) + TEXT
    return (
        picture.getpixel((left + 1, top + 1)),
        picture.getpixel((left + FRAME + TILE[0] // 2, top + FRAME + TILE[1] // 2)),
    )


def rgb(color: str) -> tuple:
    return ImageColor.getrgb(color)


def test_frames_say_what_is_a_match(shown):
    picture = draw_rank_list(shown(3))
    assert frame_and_middle(picture, -1) == (rgb(QUERY), QUERY_COLOR)
    for row, matches in enumerate(([False, True, False], [True, False, False])):
        for place, is_match in enumerate(matches):
            assert frame_and_middle(picture, place, row) == (rgb(MATCH if is_match else OTHER), GALLERY_COLOR)


def test_the_first_match_stands_behind_an_empty_place(shown):
    picture = draw_rank_list(shown(1))
    assert frame_and_middle(picture, 0)[0] == rgb(OTHER)
    assert frame_and_middle(picture, 1) == ((255, 255, 255), (255, 255, 255))
    assert frame_and_middle(picture, 2) == (rgb(MATCH), GALLERY_COLOR)


def test_boxes_are_drawn_where_there_are_some(shown):
    one = shown(3)
    boxes = {one.path: np.array([[0.25, 0.25, 0.75, 0.75]], dtype=np.float32)}
    plain, drawn = draw_rank_list(one), draw_rank_list(one, boxes=boxes, regions=["head"])
    assert drawn.height > plain.height  # the legend
    changed = np.argwhere((np.asarray(plain) != np.asarray(drawn.crop((0, 0, *plain.size)))).any(axis=2))
    top, left = 3 * TEXT + GAP + FRAME, GAP + FRAME
    first_row = changed[changed[:, 0] < top + TILE[1]]
    assert first_row.min(axis=0) == pytest.approx([top + TILE[1] / 4, left + TILE[0] / 4], abs=2)
    assert first_row.max(axis=0) == pytest.approx([top + 3 * TILE[1] / 4, left + 3 * TILE[0] / 4], abs=2)


def test_a_stack_is_as_high_as_it_may_be():
    pictures = [Image.new("RGB", (10 + i, 20), "red") for i in range(5)]
    assert [fitting(pictures, most) for most in (1, 42, 62, 63, 1000)] == [1, 2, 2, 3, 5]
    assert stack(pictures).size == (14, 105)


def test_a_thumbnail_is_a_small_jpeg(shown):
    kind, _, content = thumbnail_uri(shown(1).path).partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == "data:image/jpeg" and image.format == "JPEG" and image.size == THUMBNAIL
    assert image.getpixel((10, 10)) == pytest.approx(QUERY_COLOR, abs=4)


def test_an_image_that_has_gone_is_one_line(shown, tmp_path):
    one = shown(1)
    (tmp_path / "query" / "q0.png").unlink()
    with pytest.raises(DataError, match=r"q0.png' does not exist"):
        draw_rank_list(one)
