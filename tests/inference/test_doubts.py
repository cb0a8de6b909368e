import numpy as np
import pytest
from mgre.inference.doubts import doubts
from mgre.record import ModelRecord
from PIL import Image

RECORD = ModelRecord("MGRe", (96, 48), None, (0.0,) * 3, (1.0,) * 3, "")


def colourful(height, width):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("size", "doubted"), [((24, 12), False), ((23, 12), True), ((24, 11), True), ((1, 3), True)])
def test_a_tiny_image_is_doubted(size, doubted):
    found = doubts(colourful(*size), RECORD)
    assert [f"has {size[1]} x {size[0]} pixels" in doubt for doubt in found] == [True] * doubted


def test_a_grey_image_is_doubted():
    grey = colourful(96, 48).convert("L").convert("RGB")
    assert ["is grey" in doubt for doubt in doubts(grey, RECORD)] == [True]
    tinted = np.array(grey)
    tinted[50, 20] = (9, 40, 90)  # one pixel has a colour
    assert doubts(Image.fromarray(tinted), RECORD) == []
