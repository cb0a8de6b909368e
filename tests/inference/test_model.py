"""What every kind of model offers, with one that can be computed by hand."""

import numpy as np
import pytest
from mgre.reading.images import ImageError
from PIL import Image


def test_a_description_of_no_images_has_the_shapes_of_one(plain_model):
    found = plain_model().describe([])
    assert found.features.shape == (0, 4)
    assert found.boxes["head"].shape == (0, 4) and found.terms["stage1"].shape == (0, 2, 4)


def test_boxes_of_a_frame_are_crops_of_it(plain_model):
    frame = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    xyxy = np.array([[1, 2, 11, 22], [5.5, 0, 30, 30]], dtype=np.float32)
    model = plain_model()
    crops = [frame[2:22, 1:11], frame[0:30, 5:30]]
    np.testing.assert_array_equal(model.embed_boxes(frame, xyxy), model.embed(crops))
    flipped = [Image.fromarray(crop) for crop in crops]
    np.testing.assert_array_equal(model.embed_boxes(frame, xyxy, flip=True), model.embed(flipped, flip=True))
    assert model.embed_boxes(frame, np.empty((0, 4))).shape == (0, 4)


def test_images_are_read_ahead_but_no_further_than_two_batches(plain_model):
    model, given = plain_model(), []

    def images():
        for number in range(20):
            given.append(number)
            yield Image.new("RGB", (4, 8), (number, 0, 0))

    seen = []
    embed = model.embed_pixels
    model.embed_pixels = lambda pixels: (seen.append(len(given)), embed(pixels))[1]
    features = model.embed(images(), batch_size=3)
    assert features[:, 0].tolist() == list(range(20)) and model.batches == [3] * 6 + [2]
    assert seen[0] == 9  # two batches beside the first


def test_an_image_that_cannot_be_read_is_named(plain_model, tmp_path, write_image):
    (tmp_path / "b.png").touch()
    with pytest.raises(ImageError, match=r"b\.png' is empty"):
        plain_model().embed([write_image(tmp_path / "a.png"), tmp_path / "b.png"])
