"""What TensorRT needs beside an ONNX file: the sizes of its batches, and the command that builds an engine.

An engine fits one kind of GPU and one release of TensorRT, so it is built where it is used.
"""

import json
import os
import shlex

from mgre.export.sidecars import Sidecar
from mgre.inference.exported import INPUT

# Images in a batch: the least, those the engine is tuned for, and the most (NVIDIA's trackers ask for 100).
BATCHES = {"min": 1, "opt": 16, "max": 100}


def make_tensorrt_files(path: str, size: tuple[int, int]) -> list[Sidecar]:
    """The profile and the script for the ONNX file ``path`` of images of ``size`` (H, W)."""
    stem = os.path.splitext(path)[0]
    shapes = {name: [batch, 3, *size] for name, batch in BATCHES.items()}
    name = os.path.basename(path)
    engine = f"{os.path.splitext(name)[0]}.engine"
    options = [f"--{key}Shapes={INPUT}:{'x'.join(map(str, shape))}" for key, shape in shapes.items()]
    # Strongly typed: an fp16 file says itself which of its parts stay in float32.
    words = ["trtexec", f"--onnx={name}", f"--saveEngine={engine}", "--stronglyTyped", *options]
    profile = {"onnx": name, "engine": engine, "profile": {INPUT: shapes}, "command": words}
    script = f"""#!/bin/sh
# Builds {engine} for the GPU of this machine, beside the ONNX file. trtexec comes with TensorRT.
set -e
cd "$(dirname "$0")"
{shlex.join(words)}
"""
    return [
        Sidecar(f"{stem}.tensorrt.json", json.dumps(profile, indent=2) + "\n", "the sizes of TensorRT's batches"),
        Sidecar(f"{stem}.tensorrt.sh", script, "sh runs it where a GPU is; it builds the engine"),
    ]
