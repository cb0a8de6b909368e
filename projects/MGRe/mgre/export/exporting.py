"""One export: the network, the file, its check against PyTorch, and what its takers read beside it."""

import os
import tempfile
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from mgre.errors import SetupError
from mgre.export.crops import Crops
from mgre.export.network import ExportedNetwork, check_size
from mgre.export.onnx_file import features_only, make_onnx, write_facts
from mgre.export.parity import TOLERANCES, Parity, compare
from mgre.export.precision import to_half, to_int8
from mgre.export.sidecars import Sidecar, make_sidecars
from mgre.inference.checkpoint_model import CheckpointModel
from mgre.inference.exported import ExportedFacts
from mgre.inference.exported_model import regions_path
from mgre.inference.flavours import Flavour
from mgre.inference.onnx_model import OnnxModel
from mgre.inference.preparation import prepare
from mgre.record import ModelRecord
from mgre.system.files import write_atomically


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes:
        flavour: what the runtime feeds.
        normalize: features of length 1.
        regions: a second file with boxes and regions' vectors.
        precision: "fp32", "fp16" or "int8".
        calibration: for int8, images of people (N, 3, H, W) uint8.
    """

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
        files: those that were written; none where the parity has failures.
        sidecars: those among them that a taker reads.
    """

    parity: Parity
    files: list[str] = field(default_factory=list)
    sidecars: list[Sidecar] = field(default_factory=list)


def export_onnx(model: CheckpointModel, path: str, options: Options, crops: Crops) -> Export:
    """Write an ONNX file of the model, where it agrees with PyTorch.

    Args:
        model: the checkpoint, on the CPU.
        path: of the file.
        crops: the images on which both are compared.

    Raises:
        ConfigError: the model cannot be exported, or not so.
        ImageError: an image of the ``crops`` cannot be read.
        SetupError: a package is missing, or the file cannot be written.
    """
    size = input_size(model.record)
    check_size(model.network, model.record)
    network = ExportedNetwork(
        model.network, model.record, options.flavour, normalize=options.normalize, regions=options.regions
    )
    whole = make_onnx(network, size)
    facts = ExportedFacts(
        record=model.record,
        checkpoint=model.fingerprint,
        flavour=options.flavour,
        precision=options.precision,
        normalized=options.normalize,
    )
    files = {path: _coarsened(features_only(whole) if options.regions else whole, options)}
    write_facts(files[path], facts)
    if options.regions:
        # With eight bits boxes would jump from cell to cell, so this file stays in float32.
        files[regions_path(path)] = whole if options.precision == "int8" else _coarsened(whole, options)
        write_facts(files[regions_path(path)], replace(facts, boxes=network.boxes))
    pixels = np.stack([prepare(image, model.record) for image in crops.paths])
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            onnx.save(content, os.path.join(folder, os.path.basename(name)))
        exported = OnnxModel.load(os.path.join(folder, os.path.basename(path)), device="cpu")
        tolerance = TOLERANCES[options.precision]
        parity = compare(model, exported, pixels, crops, tolerance, regions=options.regions)
    if parity.failures:
        return Export(parity)
    sidecars = make_sidecars(
        path,
        options.flavour,
        size=size,
        dim=exported.dim,
        normalized=options.normalize,
        precision=options.precision,
    )
    contents = {name: content.SerializeToString() for name, content in files.items()}
    contents |= {sidecar.path: sidecar.text.encode() for sidecar in sidecars}
    for name, content in contents.items():
        write(name, content)
    return Export(parity, list(contents), sidecars)


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
    try:
        with write_atomically(path) as unfinished, open(unfinished, "wb") as file:
            file.write(content)
    except OSError as error:
        raise SetupError(f"'{path}' cannot be written ({error.strerror}): choose another --output") from error
