"""Trained models for the tests of inference."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fastreid.config import CfgNode
from mgre.engine.training_record import make_record
from torch import nn


@pytest.fixture
def save_model(tmp_path: Path, small_config: Callable[..., CfgNode], build_small: Callable[..., nn.Module]) -> Callable:
    """Write a checkpoint with a record, of a small model that is not trained but whose statistics and boxes are no
    longer those of the start; the model itself and the path."""

    def save(config: str = "Base-MGRe", name: str = "model.pth", **overrides: str) -> tuple[nn.Module, Path]:
        model = build_small(config, **overrides)
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor += 0.05 * torch.rand_like(tensor)
        path = tmp_path / name
        record = make_record(small_config(config, **overrides), {"mAP": 12.5})
        torch.save({"model": model.state_dict(), "record": record.to_json()}, path)
        return model.eval(), path

    return save


@pytest.fixture
def write_crops(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., list[Path]]:
    """Write crops of several sizes."""

    def write(number: int = 5) -> list[Path]:
        return [write_image(tmp_path / "crops" / f"{i}.png", (40 + 9 * i, 20 + 5 * i)) for i in range(number)]

    return write
