"""Smaller and faster files: half precision, and eight bits.

What is about places stays in float32: the boxes, and the weights of the samples that are made from them. Half precision
has 11 bits, with which neighbouring cells of a map of 64 rows nearly share a coordinate. So does what is about lengths:
the pixels' normalisation, and that of the features.
"""

import logging
import os
import tempfile
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from mgre.errors import DataError
from mgre.inference.exported import INPUT
from mgre.inference.flavours import Flavour
from mgre.inference.preparation import prepare
from mgre.reading.image_files import list_image_files
from mgre.reading.images import UnreadableImageError
from mgre.record import ModelRecord

# Modules of the network, as torch's exporter notes them for each node.
_LOCATION, _SAMPLING, _HEAD = "LocationModule", "SamplingModule", "Head"
# Parts of MGRe, of a Baseline and of MGN, as attributes of the network.
_PARTS = (".backbone", ".heads", ".extraction", ".location", ".sampling", ".b1", ".b2", ".b3")
# More images change the ranges of the maps by little.
MOST_IMAGES = 300
_BATCH = 8


def to_half(model: ModelProto) -> ModelProto:
    """A copy of ``model`` in float16, with inputs and outputs in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = ModelProto()
    copy.CopyFrom(model)
    name_nodes(copy)
    half = convert_float_to_float16(copy, keep_io_types=True, node_block_list=_nodes_in_float32(copy))
    del half.graph.value_info[:]  # the types there are those from before
    return half


def to_int8(model: ModelProto, pixels: np.ndarray, flavour: Flavour) -> ModelProto:
    """A copy of ``model`` whose convolutions have eight bits, by onnxruntime's static quantisation (QDQ).

    The convolutions of location modules and heads keep float32: they are few, and their values are the result.
    Weights use 7 of the eight bits, so that the 16-bit sums of CPUs without VNNI do not saturate.

    Args:
        pixels: (N, 3, H, W) uint8, images of people, from which the maps' ranges are found.
        flavour: what the model's input expects.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    copy = ModelProto()
    copy.CopyFrom(model)
    name_nodes(copy)
    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "float32.onnx"), os.path.join(folder, "int8.onnx")
        onnx.save(copy, source)
        root.setLevel(logging.ERROR)  # the library advises steps that this export has taken already
        try:
            quantize_static(
                source,
                target,
                _Batches(pixels, flavour),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                # Weights of 7 bits: a CPU with AVX2 or AVX-512 but without VNNI adds pairs of products of eight bits in
                # 16 bits, where they saturate, and the file would give other features than on the CPU of its check. It
                # is so with activations of int8 too, which onnxruntime takes for uint8 on x86.
                reduce_range=True,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=nodes_kept_from_int8(copy),
            )
        finally:
            root.setLevel(level)
        return onnx.load(target)


def name_nodes(model: ModelProto) -> None:
    """Give each node a name of its own, by which it can be left out."""
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"


def nodes_kept_from_int8(model: ModelProto) -> list[str]:
    """The nodes that stay in float32 where the others have eight bits, by name."""
    parts = (_LOCATION, _SAMPLING, _HEAD)
    return [node.name for node in model.graph.node if any(part in _modules(node) for part in parts)]


def read_calibration(folder: str, record: ModelRecord) -> np.ndarray:
    """The images of a folder, evenly picked where there are more than :data:`MOST_IMAGES`: (N, 3, H, W) uint8.

    Raises:
        DataError: the folder cannot be read, or has fewer than two images; one of them is damaged.
    """
    paths = list_image_files(folder, or_in_its_folders=True)
    if len(paths) < 2:
        raise DataError(
            f"--calibration '{folder}' has {len(paths)} images: give a folder of some hundred crops of people"
        )
    picked = [paths[i] for i in np.linspace(0, len(paths) - 1, min(MOST_IMAGES, len(paths))).astype(int)]
    try:
        return np.stack([prepare(path, record) for path in picked])
    except UnreadableImageError as error:
        raise DataError(f"--calibration: {error}") from error


class _Batches:
    """What onnxruntime calls a calibration data reader."""

    def __init__(self, pixels: np.ndarray, flavour: Flavour) -> None:
        self._batches = self._fed(pixels, flavour)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)

    @staticmethod
    def _fed(pixels: np.ndarray, flavour: Flavour) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(pixels), _BATCH):
            yield {INPUT: flavour.feed(pixels[start : start + _BATCH])}


def _nodes_in_float32(model: ModelProto) -> list[str]:
    """The nodes that stay in float32, by name."""
    kept, values = [], set[str]()
    for node in model.graph.node:
        modules = _modules(node)
        is_place = _LOCATION in modules or (_SAMPLING in modules and node.op_type not in ("MatMul", "Transpose"))
        # The network itself, outside of all its parts: the normalisation.
        is_length = bool(modules) and not any(part in modules for part in _PARTS)
        # The exporter's own nodes say no module.
        follows = not modules and any(name in values for name in node.input)
        if is_place or is_length or follows:
            kept.append(node.name)
            values.update(node.output)
    return kept


def _modules(node: NodeProto) -> str:
    return next((entry.value for entry in node.metadata_props if entry.key == "namespace"), "")
