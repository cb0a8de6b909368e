"""Small MGRe models, built from the config as users build them."""

from collections.abc import Callable

import pytest
import torch
from fastreid.modeling import build_model
from fastreid.utils.events import EventStorage
from mgre.config import load_config
from torch import nn

SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.DEPTH": "18x",
    "MODEL.BACKBONE.PRETRAIN": "False",
    "MODEL.HEADS.NUM_CLASSES": "3",
    "MODEL.HEADS.EMBEDDING_DIM": "8",
    "INPUT.SIZE_TRAIN": "(64, 32)",
    "INPUT.SIZE_TEST": "(64, 32)",
}


@pytest.fixture
def build_small() -> Callable[..., nn.Module]:
    """Build a shipped config at small size, with overrides ``**{"KEY": "VALUE"}``."""

    def build(config: str = "Base-MGRe", **overrides: str) -> nn.Module:
        torch.manual_seed(0)
        pairs = [word for pair in (SMALL | overrides).items() for word in pair]
        return build_model(load_config(f"configs/MGRe/{config}.yml", pairs))

    return build


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
def storage():
    """The toolbox's event storage, as it is open during training."""
    with EventStorage(0) as storage:
        yield storage
