"""A small trained model and its exported files, made once: an export takes seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from fastreid.modeling import build_model
from mgre.config import load_config
from mgre.engine.training_record import make_record
from mgre_cli.export import main


class Exported(NamedTuple):
    """A checkpoint and its ONNX file with that of its regions beside it."""

    checkpoint: Path
    onnx: Path


def write_checkpoint(path: Path, config: str, **overrides: str) -> Path:
    """A small model that is not trained, but whose statistics and boxes are no longer those of the start."""
    options = {
        "MODEL.DEVICE": "cpu",
        "MODEL.BACKBONE.DEPTH": "18x",
        "MODEL.BACKBONE.PRETRAIN": "False",
        "MODEL.HEADS.NUM_CLASSES": "3",
        "MODEL.HEADS.EMBEDDING_DIM": "8",
        "INPUT.SIZE_TEST": "(96, 48)",
    } | overrides
    cfg = load_config(f"configs/MGRe/{config}.yml", [word for pair in options.items() for word in pair])
    torch.manual_seed(0)
    model = build_model(cfg)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "running" in name or "predictor" in name or name.endswith("bias"):
                tensor += 0.05 * torch.rand_like(tensor)
    torch.save({"model": model.state_dict(), "record": make_record(cfg, {"mAP": 12.5}).to_json()}, path)
    return path


@pytest.fixture
def save_checkpoint() -> Callable[..., Path]:
    """:func:`write_checkpoint`."""
    return write_checkpoint


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An MGRe with one stage, exported by the command for Ultralytics, with boxes."""
    folder = tmp_path_factory.mktemp("exported")
    checkpoint = write_checkpoint(folder / "small.pth", "Base-MGRe", **{"MODEL.MGRE.STAGES": "(3,)"})
    assert main([str(checkpoint), "--regions", "--input", "unit-rgb"]) == 0
    return Exported(checkpoint, folder / "small.onnx")
