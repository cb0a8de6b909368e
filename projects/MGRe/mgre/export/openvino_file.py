"""OpenVINO's files (IR), with the whole preparation inside: bytes in, features out."""

import logging
import os
import tempfile
from typing import Any

import numpy as np
import onnx

from mgre.errors import SetupError
from mgre.export.precision import name_nodes, nodes_kept_from_int8
from mgre.inference.exported import ExportedFacts
from mgre.record import ModelRecord

INSTALL = "pip install openvino"
INSTALL_NNCF = "pip install nncf"


def write_openvino(
    model: onnx.ModelProto, path: str, facts: ExportedFacts, *, calibration: np.ndarray | None = None
) -> None:
    """Write an .xml file and the .bin file beside it.

    Args:
        model: takes RGB that is normalised by the record.
        path: of the .xml file.
        calibration: for int8, images of people (N, 3, H, W) uint8.

    Raises:
        SetupError: a package is missing.
    """
    try:
        import openvino
    except ImportError as error:
        raise SetupError(f"--format openvino needs a package ({error}): {INSTALL}") from error
    name_nodes(model)
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "float32.onnx")
        onnx.save(model, source)
        network = openvino.Core().read_model(source)
    _take_bytes(network, facts.record, facts.flavour.channels)
    if calibration is not None:
        pixels = calibration if facts.flavour.channels == "RGB" else calibration[:, ::-1]
        network = _quantise(network, np.ascontiguousarray(pixels), nodes_kept_from_int8(model))
    for key, value in facts.to_metadata().items():
        network.set_rt_info(value, key)
    openvino.save_model(network, path, compress_to_fp16=facts.precision == "fp16")


def _take_bytes(network: Any, record: ModelRecord, channels: str) -> None:
    """Put the conversion from bytes, and the normalisation, in front of the network."""
    from openvino import Layout, Type
    from openvino.preprocess import ColorFormat, PrePostProcessor

    steps = PrePostProcessor(network)
    color = ColorFormat.RGB if channels == "RGB" else ColorFormat.BGR
    steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NCHW")).set_color_format(color)
    steps.input().model().set_layout(Layout("NCHW"))
    prepared = steps.input().preprocess().convert_element_type(Type.f32)
    if channels == "BGR":
        prepared = prepared.convert_color(ColorFormat.RGB)
    prepared.mean(list(record.pixel_mean)).scale(list(record.pixel_std))
    steps.build()


def _quantise(network: Any, pixels: np.ndarray, kept: list[str]) -> Any:
    try:
        import nncf
    except ImportError as error:
        raise SetupError(f"--format openvino --precision int8 needs a package ({error}): {INSTALL_NNCF}") from error
    names = {operation.get_friendly_name() for operation in network.get_ops()}
    batches = nncf.Dataset([pixels[start : start + 1] for start in range(len(pixels))])
    # The products of the sampling stay in float32: OpenVINO 2026.4 cannot load them with eight bits.
    ignored = nncf.IgnoredScope(names=sorted(names & set(kept)), types=["MatMul"])
    nncf.set_log_level(logging.ERROR)
    return nncf.quantize(network, batches, subset_size=len(pixels), ignored_scope=ignored)
