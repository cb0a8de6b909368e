import numpy as np
import pytest
from mgre.gallery import Match
from mgre.gallery.entries import Entry
from mgre.gallery.pictures import draw_matches
from PIL import Image


@pytest.fixture
def write_plain(tmp_path):
    """Write an image of one colour, and give its path."""

    def write(name, color):
        path = tmp_path / name
        Image.new("RGB", (20, 40), color).save(path)
        return str(path)

    return write


def test_query_and_results_from_left_to_right(write_plain):
    matches = [
        Match(Entry("17", camera="gate", path=write_plain("a.png", (250, 0, 0))), 0.25, 0.75),
        Match(Entry("gone", path="not/there.png"), 0.5, 0.5),
        Match(Entry("18", path=write_plain("b.png", (0, 250, 0))), 0.75, 0.25),
    ]
    sheet = np.asarray(draw_matches("q", write_plain("q.png", (0, 0, 250)), matches)).astype(int)
    middle = sheet[26 + 4 + 96]  # a row through the middle of all images
    # The pure colours in the order in which they come, an image 20 x 40 fills its tile of 96 x 192.
    columns = {
        name: np.flatnonzero((middle == color).all(axis=1))
        for name, color in (
            ("query", (0, 0, 250)),
            ("first", (250, 0, 0)),
            ("third", (0, 250, 0)),
            ("empty", (0xE8, 0xEA, 0xED)),
        )
    }
    assert [len(found) for found in columns.values()] == [96, 96, 96, 96]
    assert columns["query"].max() < columns["first"].min() < columns["first"].max() < columns["empty"].min()
    assert columns["empty"].max() < columns["third"].min()


def test_a_query_without_image_and_nothing_found():
    assert draw_matches("q", None, []).width > 300
