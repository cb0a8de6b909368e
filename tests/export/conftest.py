"""A small trained model and its exported files, made once for all processes: an export takes seconds."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from fastreid.modeling import build_model
from filelock import FileLock
from mgre.engine.training_record import make_record
from mgre_cli.export import main

from tests.fixtures import load_small_config


class Exported(NamedTuple):
    """A checkpoint and its ONNX file with that of its regions beside it."""

    checkpoint: Path
    onnx: Path


def write_checkpoint(path: Path, config: str, **overrides: str) -> Path:
    """A small model that is not trained, but whose statistics and boxes are no longer those of the start."""
    cfg = load_small_config(config, **{"INPUT.SIZE_TEST": "(96, 48)"} | overrides)
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
    base = tmp_path_factory.getbasetemp()
    # The folder of one of xdist's processes is in that of all, where the first makes the files for all.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    checkpoint, made = folder / "small.pth", folder / "made"
    with FileLock(f"{folder}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that has failed
            folder.mkdir()
            write_checkpoint(checkpoint, "Base-MGRe", **{"MODEL.MGRE.STAGES": "(3,)"})
            assert main([str(checkpoint), "--regions", "--input", "unit-rgb"]) == 0
            made.touch()
    return Exported(checkpoint, folder / "small.onnx")
