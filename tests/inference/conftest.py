"""A model for the tests of inference that can be computed by hand."""

import numpy as np
import pytest
from mgre.inference import Description, Model
from mgre.record import ModelRecord


class PlainModel(Model):
    """Features that can be computed by hand: the mean of each channel, and the first pixel's red; a region."""

    def __init__(self, name: str = "plain") -> None:
        record = ModelRecord("Plain", (8, 4), None, (0, 0, 0), (1, 1, 1), "", {"stage1": ["head"]}, {"stage1": 1.0})
        super().__init__(record, f"{name}.pth")
        self.fingerprint = name
        self.batches: list[int] = []

    fingerprint = ""

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        means = pixels.mean(axis=(2, 3), dtype=np.float64)
        return np.column_stack([means, pixels[:, 0, 0, 0]]).astype(np.float32)

    def describe_pixels(self, pixels: np.ndarray) -> Description:
        features = self.embed_pixels(pixels)
        boxes = np.column_stack([features[:, :1] * 0, features[:, :3] / 255])
        return Description(features, {"head": boxes}, {"stage1": np.stack([features * 0.75, features * 0.25], axis=1)})


@pytest.fixture
def plain_model() -> type[PlainModel]:
    return PlainModel
