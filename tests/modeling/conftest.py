"""A batch and the event storage, as training has them."""

from collections.abc import Callable, Iterator

import pytest
import torch
from fastreid.utils.events import EventStorage


@pytest.fixture
def make_batch() -> Callable[..., dict]:
    """A batch as the data loader gives it: random images, two of each identity, random key points."""

    def make(batch_size: int = 6, size: tuple[int, int] = (64, 32)) -> dict:
        generator = torch.Generator().manual_seed(0)
        keypoints = torch.rand(batch_size, 17, 3, generator=generator)
        keypoints[..., 2] = (keypoints[..., 2] > 0.3).float()
        return {
            "images": torch.rand(batch_size, 3, *size, generator=generator) * 255,
            "targets": torch.arange(batch_size) // 2,
            "camids": torch.arange(batch_size) % 2,
            "keypoints": keypoints,
        }

    return make


@pytest.fixture
def storage() -> Iterator[EventStorage]:
    """The toolbox's event storage, as it is open during training."""
    with EventStorage(0) as storage:
        yield storage
