"""Sessions of onnxruntime, for every ONNX file that this package runs. Nothing here imports torch."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mgre.errors import SetupError, WeightsError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_session(weights: str, *, device: str, threads: int = 0) -> "InferenceSession":
    """A session of onnxruntime for an ONNX file.

    Args:
        weights: the .onnx file.
        device: "cpu", "cuda", "cuda:0".
        threads: for one operation; 0: one for each core.

    Raises:
        WeightsError: the file does not exist, or is no ONNX model.
        SetupError: onnxruntime is missing, or cannot use the device.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SetupError(f"onnxruntime cannot be imported ({error}): pip install onnxruntime") from error
    if not os.path.isfile(weights):
        raise WeightsError(f"weight file '{weights}' does not exist: check the path")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: the warnings are about the export of the file
    options.intra_op_num_threads = threads
    providers = _providers(device, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(weights, options, providers=providers)
    except Exception as error:  # the classes of onnxruntime's errors have no common base
        raise WeightsError(
            f"weight file '{weights}' is no ONNX model that can be run, or not all of it ({first_line(error)}): "
            "copy or export it again"
        ) from error
    # onnxruntime falls back to the CPU without an error.
    if device != "cpu" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise SetupError(f"onnxruntime cannot use device '{device}': install the CUDA and cuDNN it was built for")
    return session


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    """onnxruntime's execution providers for a device."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    if kind != "cuda":
        raise SetupError(f"ONNX models run on the devices cpu and cuda here, not '{device}': choose one of these")
    if "CUDAExecutionProvider" not in available:
        raise SetupError(
            f"the installed onnxruntime cannot use device '{device}': "
            "pip uninstall -y onnxruntime && pip install onnxruntime-gpu, or choose the device cpu"
        )
    return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]


def best_device() -> str:
    """The device "cuda" where onnxruntime has been built for it and there is a GPU of NVIDIA, else "cpu"."""
    try:
        import onnxruntime
    except ImportError:
        return "cpu"  # the error comes with the session
    built = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return "cuda" if built and os.path.exists("/dev/nvidia0") else "cpu"


def first_line(error: Exception) -> str:
    """The first line of the error's message, of which onnxruntime's go on with its source files."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
