"""Exported models are used without the training stack."""

import os
import subprocess
import sys

# Packages that only training, evaluation and checkpoints need.
STACK = (
    "torch",
    "torchvision",
    "fastreid",
    "faiss",
    "fvcore",
    "yacs",
    "scipy",
    "cv2",
    "sklearn",
    "timm",
    "safetensors",
)


def test_inference_imports_none_of_the_training_stack():
    code = (
        "import sys, mgre, mgre.inference, mgre.record, mgre.reading.images, mgre.reading.image_files\n"
        "import mgre.commands.card, mgre.commands.compare, mgre.commands.extract\n"
        f"print(sorted(set({STACK!r}) & set(sys.modules)))"
    )
    environment = {**os.environ, "MGRE_INFERENCE_ONLY": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
