"""The figures of an evaluation by pixels, for comparing two forms of the same data."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode
from mgre.data import build_test_loader
from mgre.evaluation.ranking import eval_market1501

from tests.data.csv_example import PLAIN


@pytest.fixture
def figures(cfg) -> Callable[..., tuple]:
    """Queries, gallery images, Rank-1 and mAP of a registered data set, with the pixels of small images as features.

    The features are those of a test loader, so that reader, decoder and transform take part.
    """

    def measure(name: str = "CustomReID", config: CfgNode = cfg) -> tuple[int, int, float, float]:
        config.INPUT.SIZE_TEST = [32, 16]
        config.TEST.IMS_PER_BATCH = 4
        loader, num_query = build_test_loader(config, name)
        batches = list(loader)
        pixels = torch.cat([batch["images"].flatten(1) for batch in batches])
        identities, cameras = (torch.cat([batch[key] for batch in batches]).numpy() for key in ("targets", "camids"))
        distances = torch.cdist(pixels[:num_query], pixels[num_query:]).numpy()
        cmc, precisions, _ = eval_market1501(
            distances, identities[:num_query], identities[num_query:], cameras[:num_query], cameras[num_query:]
        )
        return num_query, len(pixels) - num_query, float(cmc[0]), float(np.mean(precisions))

    return measure


@pytest.fixture
def csv_folder(tmp_path, write_image) -> Path:
    """A folder with ``list.csv``, which is :data:`csv_example.PLAIN`, and its images."""
    for name in "abcdefg":
        write_image(tmp_path / "crops" / f"{name}.jpg")
    (tmp_path / "list.csv").write_text(PLAIN)
    return tmp_path


@pytest.fixture
def clean_folder(tmp_path, make_market_folder) -> Path:
    """A folder of one's own with lossless images, of which the figures are neither 0 nor 1."""
    return make_market_folder(
        tmp_path / "clean", train_ids=[2, 7], test_ids=[1, 3, 5], cameras=[1, 2, 12], size=(32, 16), suffix=".png"
    )


@pytest.fixture
def copy_folder(clean_folder, tmp_path) -> Callable[[str], Path]:
    """A copy of ``clean_folder`` that a test may spoil."""

    def copy(name: str = "other") -> Path:
        return Path(shutil.copytree(clean_folder, tmp_path / name))

    return copy
