"""Fixtures for all tests: configs and tiny data sets, made on the fly."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import mgre  # noqa: F401  (before fastreid: it makes fastreid importable)
import numpy as np
import pytest
from fastreid.config import CfgNode, get_cfg
from mgre.config import add_mgre_config
from PIL import Image

WriteImage = Callable[..., Path]


@pytest.fixture
def cfg() -> CfgNode:
    """The toolbox's defaults with MGRe's keys."""
    cfg = get_cfg()
    add_mgre_config(cfg)
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


@pytest.fixture
def write_image() -> WriteImage:
    """Write an image of random pixels, the same for the same file name."""

    def write(path: Path, size: tuple[int, int] = (32, 16), mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(path.name.encode()))
        shape = size if mode == "L" else (*size, len(mode))
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode=None).save(path)
        return path

    return write


@pytest.fixture
def make_market_folder(write_image: WriteImage) -> Callable[..., Path]:
    """Make a folder in the Market-1501 layout: each identity once in each camera, the gallery once more."""

    def make(
        folder: Path,
        *,
        train_ids: Sequence[int] = (2, 7),
        test_ids: Sequence[int] = (1, 3),
        cameras: Sequence[int] = (1, 2),
        size: tuple[int, int] = (32, 16),
        suffix: str = ".jpg",
    ) -> Path:
        splits = {"bounding_box_train": (train_ids, 1), "query": (test_ids, 1), "bounding_box_test": (test_ids, 2)}
        for name, (identities, frame) in splits.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for identity in identities:
                for camera in cameras:
                    write_image(folder / name / f"{identity:04d}_c{camera}s1_{frame:06d}_00{suffix}", size)
        return folder

    return make


@pytest.fixture
def write_keypoints() -> Callable[..., Path]:
    """Write a COCO key point JSON from (17, 3) x, y, score by file name."""

    def write(path: Path, points: Mapping[str, np.ndarray], size: tuple[int, int] = (32, 16)) -> Path:
        images = [{"id": i, "file_name": name, "height": size[0], "width": size[1]} for i, name in enumerate(points)]
        annotations = [
            {"id": i, "image_id": i, "category_id": 1, "keypoints": np.asarray(value).ravel().tolist()}
            for i, value in enumerate(points.values())
        ]
        path.write_text(json.dumps({"images": images, "annotations": annotations}))
        return path

    return write


@pytest.fixture
def data_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What mgre.data logs, also where another test has set up loggers that do not propagate."""
    logger = logging.getLogger("mgre.data")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)
