"""The Makefile: which packages it installs, and with which Python it checks a machine with a GPU."""

import os
import shutil
import subprocess
import sys

import pytest

# Stands in for .venv's Python: notes its arguments, and fails where they hold one of the words in $FAIL.
PYTHON = """#!/bin/sh
echo "$@" >>log
for word in $FAIL; do case "$*" in *"$word"*) exit 1;; esac; done
"""


def make(*words: str, **environment: str) -> str:
    names = ("PYTHON", "PYTHONPATH", "MAKEFLAGS", "OUTPUT", "ARGS")
    env = {name: value for name, value in os.environ.items() if name not in names} | environment
    return subprocess.run(["make", *words], env=env, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def install(tmp_path):
    """Install into a folder, as on a machine with CUDA or without; what .venv's Python was asked for."""
    shutil.copy("Makefile", tmp_path)
    shutil.copy("setup.py", tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)

    def call(extra: str, pose: str, fail: str = "") -> list[str]:
        options = ("-C", str(tmp_path), "PYTHON=true", f"EXTRA={extra}", f"POSE={pose}")
        make(*options, f".venv/.ready-{extra}", FAIL=fail)
        lines = (tmp_path / "log").read_text().splitlines()
        shown = [line for line in lines if "[" in line or line.startswith("-c") or "uninstall" in line]
        return [
            line.rsplit("pip ", 1)[-1].replace("install --disable-pip-version-check --editable ", "") for line in shown
        ]

    return call


def test_the_builds_without_cuda(install):
    assert install("cpu", "pose") == [
        *(".[dev]", ".[cpu]", "-c import torch, faiss", ".[pose]", "-c import torch, onnxruntime"),
    ]


def test_the_builds_with_cuda_where_they_can_be_loaded(install):
    assert install("gpu", "pose-gpu") == [
        *(".[dev]", ".[gpu]", "-c import torch, faiss", ".[pose-gpu]", "-c import torch, onnxruntime"),
    ]


@pytest.mark.parametrize("fail", ["faiss", "[gpu]"])  # it is loaded in vain, or installed
def test_a_build_of_faiss_with_cuda_that_cannot_be_had_is_replaced(install, fail):
    asked = install("gpu", "pose-gpu", fail=fail)
    assert asked[1] == ".[gpu]" and "uninstall --yes faiss-gpu" in asked and ".[cpu]" in asked
    assert ".[pose-gpu]" in asked and ".[pose]" not in asked  # onnxruntime keeps CUDA


def test_a_build_of_onnxruntime_with_cuda_that_cannot_be_loaded_is_replaced(install):
    asked = install("gpu", "pose-gpu", fail="[pose-gpu]")
    assert "uninstall --yes onnxruntime-gpu" in asked and asked[-1] == ".[pose]" and ".[cpu]" not in asked


def test_the_check_takes_a_python_that_is_named():
    own = make("-n", "gpu-check", PYTHON=sys.executable)
    assert f"{sys.executable} benchmarks/gpu_check.py" in own and "-m venv" not in own
    assert f"{sys.executable} benchmarks/gpu_check.py" in make("-n", "gpu-check", f"PYTHON={sys.executable}")
    assert ".venv/bin/python benchmarks/gpu_check.py" in make("-n", "gpu-check")
