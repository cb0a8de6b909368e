from dataclasses import replace

import numpy as np
import pytest
from mgre.export.crops import Crops, draw
from mgre.export.parity import Tolerance, compare
from mgre.inference.model import Model

# Two queries of other people, and three images each: in camera 1 the queries, in camera 2 the gallery.
CROPS = Crops("test", list("abcdefgh"), np.array([1, 2, 1, 1, 1, 2, 2, 2]), np.array([1, 1, *[2] * 6]), 2)
ANGLES = np.array([0, 90, 10, 20, 30, 100, 80, 70])


class Fixed(Model):
    """Gives the point on the circle at an angle, which is the first pixel's red."""

    fingerprint = ""

    def __init__(self, change=lambda angles: angles, size=1.0):
        super().__init__(None, "")
        self._change, self._size = change, size

    def embed_pixels(self, pixels):
        angles = np.deg2rad(self._change(pixels[:, 0, 0, 0].astype(np.float32)))
        return self._size * np.stack([np.cos(angles), np.sin(angles)], axis=1)


PIXELS = np.tile(ANGLES.astype(np.uint8)[:, None, None, None], (1, 3, 2, 2))
STRICT = Tolerance(cosine=0.99999, change=0.01, boxes=1e-4)


def test_the_length_of_features_does_not_count():
    found = compare(Fixed(), Fixed(size=3.0), PIXELS, CROPS, STRICT)
    assert not found.failures
    assert found.moved == found.gap == 0
    assert found.figures["PyTorch"] == {"mAP": pytest.approx(100), "Rank-1": pytest.approx(100)}


def test_a_turn_that_moves_one_image():
    # The image at 70 degrees turns to 5, in front of that at 10.
    found = compare(Fixed(), Fixed(lambda a: np.where(a == 70, 5.0, a)), PIXELS, CROPS, STRICT)
    assert found.cosines == pytest.approx(dict.fromkeys((1, 2, 7), np.cos(np.deg2rad(65))), abs=1e-5)
    assert found.moved == 1  # for both queries
    # For query 1, at 90 degrees, it now stands behind the one at 10; by PyTorch they are 20 and 80 degrees away.
    assert found.gap == pytest.approx(np.cos(np.deg2rad(20)) - np.cos(np.deg2rad(80)), abs=1e-5)
    # Query 0: its three at ranks 2, 3, 4. Query 1: its two at 1 and 2, the last at 6.
    expected = (np.mean([1 / 2, 2 / 3, 3 / 4]) + np.mean([1, 1, 3 / 6])) / 2
    assert found.figures["exported"]["mAP"] == pytest.approx(100 * expected)
    assert len(found.failures) == 4  # three batches and mAP
    assert "mAP changes by" in found.failures[-1]


def test_a_batch_that_mixes_images_is_found():
    """A graph that keeps the batch of its export can be right for that size alone."""

    class Mixing(Fixed):
        def embed_pixels(self, pixels):
            features = super().embed_pixels(pixels)
            return features[::-1] if len(pixels) == 2 else features

    found = compare(Fixed(), Mixing(), PIXELS, CROPS, STRICT)
    assert [failure.partition(":")[0] for failure in found.failures] == ["batch 2"]


def test_nan_is_a_failure():
    found = compare(Fixed(), Fixed(lambda a: a * np.nan), PIXELS, CROPS, STRICT)
    assert len(found.failures) == 4
    assert all("nan" in failure for failure in found.failures)


def test_ties_by_rounding_are_no_change():
    found = compare(Fixed(), Fixed(), PIXELS, CROPS, STRICT)
    figures = {"PyTorch": {"mAP": 20.0, "Rank-1": 0.0}, "exported": {"mAP": 21.0, "Rank-1": 0.0}}
    assert replace(found, figures=figures, gap=1e-3).failures
    assert not replace(found, figures=figures, gap=1e-7).failures


def test_drawn_people_are_those_that_no_training_sees(tmp_path):
    crops = draw(str(tmp_path))
    assert (crops.num_queries, len(crops.paths)) == (24, 72)
    assert len({*crops.pids}) == 12
