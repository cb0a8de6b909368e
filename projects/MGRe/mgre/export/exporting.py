"""One export: the network, the file, its check against PyTorch, and what its takers read beside it."""

import os
import tempfile
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from mgre.errors import ConfigError
from mgre.export.crops import Crops
from mgre.export.network import ExportedNetwork, check_size
from mgre.export.onnx_file import features_only, make_onnx, write_facts
from mgre.export.openvino_file import write_openvino
from mgre.export.parity import TOLERANCES, Parity, compare
from mgre.export.precision import to_half, to_int8
from mgre.export.sidecars import Sidecar, make_sidecars
from mgre.export.tensorrt import make_tensorrt_files
from mgre.export.torchscript_file import write_torchscript
from mgre.inference.checkpoint_model import CheckpointModel
from mgre.inference.exported import ExportedFacts
from mgre.inference.exported_model import regions_path
from mgre.inference.flavours import Flavour
from mgre.inference.loading import load
from mgre.inference.preparation import prepare
from mgre.record import ModelRecord
from mgre.system.files import explain_unwritable, write_atomically


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes:
        format: a key of :data:`SUFFIXES`.
        flavour: what the runtime feeds.
        normalize: features of length 1.
        regions: a second file with boxes and regions' vectors.
        precision: "fp32", "fp16" or "int8".
        calibration: for int8, images of people (N, 3, H, W) uint8.
    """

    format: str
    flavour: Flavour
    normalize: bool = False
    regions: bool = False
    precision: str = "fp32"
    calibration: np.ndarray | None = None


@dataclass(frozen=True)
class Export:
    """What an export has given.

    Attributes:
        parity: the file beside PyTorch.
        files: those that were written, with what they are for; none where the parity has failures.
    """

    parity: Parity
    files: dict[str, str] = field(default_factory=dict)


def export(model: CheckpointModel, path: str, options: Options, crops: Crops) -> Export:
    """Write a file of the model, and what its takers read beside it, where it agrees with PyTorch.

    Args:
        model: the checkpoint, on the CPU.
        path: of the file.
        crops: the images on which both are compared.

    Raises:
        ConfigError: the model cannot be exported, or not so.
        ImageError: an image of the ``crops`` cannot be read.
        SetupError: a package is missing, or the file cannot be written.
    """
    check_options(options)
    check_size(model.network, model.record)
    pixels = np.stack([prepare(image, model.record) for image in crops.paths])
    with tempfile.TemporaryDirectory() as folder:
        trial = os.path.join(folder, os.path.basename(path))
        _BUILDERS[options.format](model, trial, options)
        exported = load(trial, device="cpu")
        tolerance = TOLERANCES[options.precision]
        parity = compare(model, exported, pixels, crops, tolerance, regions=options.regions)
        if parity.failures:
            return Export(parity)
        contents = {os.path.join(os.path.dirname(path), name): _read(folder, name) for name in os.listdir(folder)}
    purposes = {name: f"{len(content) / 1e6:.1f} MB" for name, content in contents.items()}
    for sidecar in _sidecars(path, options, input_size(model.record), exported.dim):
        contents[sidecar.path], purposes[sidecar.path] = sidecar.text.encode(), sidecar.purpose
    for name, content in contents.items():
        write(name, content)
    return Export(parity, purposes)


def check_options(options: Options) -> None:
    """Stop where options do not fit each other.

    Raises:
        ConfigError: they do not.
    """
    if options.format == "openvino" and not options.flavour.name.startswith("raw-"):
        raise ConfigError(
            f"--format openvino takes bytes, which --input {options.flavour.name} are not: choose raw-bgr, as "
            "OpenVINO's demos feed it, or raw-rgb"
        )
    if options.format == "torchscript" and options.precision != "fp32":
        raise ConfigError(f"--format torchscript has no --precision {options.precision}: choose fp32, or --format onnx")


def _build_onnx(model: CheckpointModel, path: str, options: Options) -> None:
    network = _network(model, options)
    whole = make_onnx(network, input_size(model.record))
    facts = _facts(model, options)
    files = {path: _coarsened(features_only(whole) if options.regions else whole, options)}
    write_facts(files[path], facts)
    if options.regions:
        # With eight bits boxes would jump from cell to cell, so this file stays in float32.
        files[regions_path(path)] = whole if options.precision == "int8" else _coarsened(whole, options)
        write_facts(files[regions_path(path)], replace(facts, boxes=network.boxes))
    for name, content in files.items():
        onnx.save(content, name)


def _build_openvino(model: CheckpointModel, path: str, options: Options) -> None:
    record = model.record
    # What the network itself wants: OpenVINO's own steps are put in front of it.
    own = Flavour("own", record.pixel_mean, record.pixel_std, "RGB", ())
    network = _network(model, replace(options, flavour=own))
    whole = make_onnx(network, input_size(record))
    facts = _facts(model, options)
    plain = features_only(whole) if options.regions else whole
    write_openvino(plain, path, facts, calibration=options.calibration)
    if options.regions:
        write_openvino(whole, regions_path(path), replace(facts, boxes=network.boxes))


def _build_torchscript(model: CheckpointModel, path: str, options: Options) -> None:
    files = {path: options} | ({regions_path(path): options} if options.regions else {})
    for name in files:
        network = _network(model, replace(options, regions=name != path))
        facts = replace(_facts(model, options), boxes=network.boxes)
        write_torchscript(network, name, facts, input_size(model.record))


_BUILDERS = {
    "onnx": _build_onnx,
    "tensorrt": _build_onnx,
    "openvino": _build_openvino,
    "torchscript": _build_torchscript,
}
# What the path of a file of each format ends in.
SUFFIXES = {"onnx": ".onnx", "tensorrt": ".onnx", "openvino": ".xml", "torchscript": ".torchscript"}


def _network(model: CheckpointModel, options: Options) -> ExportedNetwork:
    return ExportedNetwork(
        model.network, model.record, options.flavour, normalize=options.normalize, regions=options.regions
    )


def _facts(model: CheckpointModel, options: Options) -> ExportedFacts:
    return ExportedFacts(
        record=model.record,
        checkpoint=model.fingerprint,
        flavour=options.flavour,
        precision=options.precision,
        normalized=options.normalize,
    )


def _sidecars(path: str, options: Options, size: tuple[int, int], dim: int) -> list[Sidecar]:
    if options.format == "tensorrt":
        return make_tensorrt_files(path, size)
    if options.format != "onnx":
        return []
    return make_sidecars(
        path, options.flavour, size=size, dim=dim, normalized=options.normalize, precision=options.precision
    )


def _read(folder: str, name: str) -> bytes:
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def _coarsened(model: onnx.ModelProto, options: Options) -> onnx.ModelProto:
    if options.precision == "fp16":
        return to_half(model)
    if options.precision == "int8" and options.calibration is not None:
        return to_int8(model, options.calibration, options.flavour)
    return model


def input_size(record: ModelRecord) -> tuple[int, int]:
    """(H, W) of the images that the network itself takes."""
    return record.center_crop or record.input_size


def write(path: str, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        SetupError: it cannot be written.
    """
    with (
        explain_unwritable(f"'{path}'", "choose another --output"),
        write_atomically(path) as unfinished,
        open(unfinished, "wb") as file,
    ):
        file.write(content)
