"""``mgre.load``: from a file to a model, by the kind of the file."""

import os
from collections.abc import Sequence

from mgre.errors import ConfigError, WeightsError
from mgre.inference.model import Model
from mgre.inference.onnx_model import OnnxModel
from mgre.inference.openvino_model import OpenVinoModel

# Of files of ``mgre export``.
EXPORTED_SUFFIXES = (".onnx", ".xml", ".torchscript")


def load(
    path: str | os.PathLike[str],
    *,
    config_file: str = "",
    overrides: Sequence[str] = (),
    device: str = "auto",
    amp: bool = False,
) -> Model:
    """Load a trained model for inference.

    Args:
        path: a checkpoint of MGRe or of any architecture of the toolbox (.pth, .safetensors), or a file of
            ``mgre export``: .onnx and .xml (OpenVINO), for which neither torch nor the toolbox is needed, .torchscript.
        config_file: of the training, for checkpoints without a record: those of the toolbox, and of older releases.
        overrides: ``KEY VALUE`` pairs to the config, as on a command line.
        device: "cpu", "cuda", or "auto": CUDA where there is a GPU.
        amp: compute in mixed precision, for checkpoints: in float16 on CUDA, in bfloat16 on the CPU. Features are
            float32 either way.

    Raises:
        WeightsError: the file is missing, damaged, of another architecture, or has no record.
        ConfigError: the config is wrong.
        SetupError: the device is not there, or a package is missing.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise WeightsError(f"model '{path}' is {'a folder' if os.path.isdir(path) else 'not there'}: name its file")
    suffix = os.path.splitext(path)[1]
    if suffix in EXPORTED_SUFFIXES and (config_file or overrides):
        raise ConfigError(f"'{path}' is exported, so a config changes nothing in it: export the checkpoint again")
    if suffix in EXPORTED_SUFFIXES and amp:
        raise ConfigError(f"'{path}' is exported in its precision: leave mixed precision (--amp) out")
    if suffix == ".onnx":
        return OnnxModel.load(path, device=device)
    if suffix == ".xml":
        return OpenVinoModel.load(path, device=device)
    if suffix == ".torchscript":
        from mgre.inference.torchscript_model import TorchScriptModel

        return TorchScriptModel.load(path, device=device)
    # Only here, because it imports torch, which exported models do without.
    from mgre.inference.checkpoint_model import CheckpointModel

    return CheckpointModel.load(path, config_file=config_file, overrides=overrides, device=device, amp=amp)
