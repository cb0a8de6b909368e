"""The wheel in a virtual environment that has numpy, Pillow and onnxruntime alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from mgre.inference.exported import ExportedFacts
from mgre.inference.flavours import FLAVOURS
from mgre.record import ModelRecord
from onnx import TensorProto, helper
from PIL import Image

PACKAGES = ("numpy", "pillow", "onnxruntime")


def write_model(path: Path) -> None:
    """A model whose feature is the mean of each channel."""
    node = helper.make_node("ReduceMean", ["images"], ["output0"], axes=[2, 3], keepdims=0)
    graph = helper.make_graph(
        [node],
        "means",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 4])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    record = ModelRecord("Baseline", (8, 4), None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "")
    helper.set_model_props(model, ExportedFacts(record, "abc", FLAVOURS["unit-rgb"]).to_metadata())
    onnx.save(model, path)


def without_pythonpath() -> dict[str, str]:
    """The environment without PYTHONPATH and the like: what is found there is no part of a virtual environment."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture
def environment(tmp_path: Path, wheel: Path) -> Path:
    """Its Python."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    subprocess.run([*install, "--no-deps", str(wheel)], env=without_pythonpath(), check=True)
    packages = [*install, "--retries", "0", *PACKAGES]
    got = subprocess.run(packages, env=without_pythonpath(), capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"{', '.join(PACKAGES)} cannot be installed here: {got.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.slow  # a build, and an installation of 80 MB
def test_compare_and_extract_need_numpy_pillow_and_onnxruntime_alone(environment, tmp_path):
    write_model(tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    plain = without_pythonpath()
    for words, said in (
        (["compare", "a.png", "b.png"], "cosine|score"),
        (["extract", "a.png", "b.png"], "2 of 2 images, .* a second: features.npz"),
    ):
        command = [environment, "-X", "importtime", environment.parent / "mgre", *words, "--model", "model.onnx"]
        done = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert re.search(said, done.stdout)
        check_imports(done.stderr)
    with np.load(tmp_path / "features.npz") as found:
        assert found["features"].shape == (2, 3)


def check_imports(importtime: str) -> None:
    imported = {line.rpartition("|")[2].strip() for line in importtime.splitlines()}
    assert "onnxruntime" in imported and not imported & {"torch", "fastreid", "cv2", "scipy"}
