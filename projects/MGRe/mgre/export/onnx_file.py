"""ONNX files, by torch's exporter.

The exporter is the one on torch.export (``dynamo=True``). The older one, on TorchScript, is deprecated, and fixes what
it takes for constants: it cannot export the location modules with a dynamic batch.
"""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from mgre.errors import ConfigError, SetupError, printable
from mgre.export.network import ExportedNetwork
from mgre.inference.exported import BATCH, INPUT, OUTPUT, ExportedFacts
from mgre.system.garbage import no_garbage_collection

if TYPE_CHECKING:
    from onnx import ModelProto

# The lowest that torch's exporter writes without a conversion. Newer ones have nothing that these models need, and
# older runtimes do not read them.
OPSET = 18
# The newest that BoxMOT accepts.
IR_VERSION = 10


@no_garbage_collection()
def make_onnx(network: ExportedNetwork, size: tuple[int, int]) -> "ModelProto":
    """The network as an ONNX model of a dynamic batch.

    Args:
        size: (H, W) of the images.

    Raises:
        ConfigError: the network cannot be exported.
        SetupError: a package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SetupError(f"the export needs a package ({error}): pip install onnx onnxscript") from error
    program = capture(network, size)
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=network.outputs,
                dynamic_shapes={INPUT: {0: BATCH}},
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise _not_exportable(network, _missing_operation(error)) from error
    assert exported is not None  # it is, where no file was asked for
    model = exported.model_proto
    model.ir_version = min(model.ir_version, IR_VERSION)
    return model


def capture(network: ExportedNetwork, size: tuple[int, int]) -> torch.export.ExportedProgram:
    """The network as a graph of torch, of a dynamic batch.

    Raises:
        ConfigError: the network cannot be exported; the message names the module and why.
    """
    images = torch.zeros(2, 3, *size, device=network.scale.device)
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(
                network, (images,), dynamic_shapes={INPUT: {0: torch.export.Dim(BATCH, min=1)}}, strict=False
            )
    except Exception as error:  # torch raises errors of many kinds for what it cannot capture
        raise _not_exportable(network, _reason(error)) from error


def features_only(model: "ModelProto") -> "ModelProto":
    """The part of an exported model that gives the features, with the same names."""
    from onnx.utils import Extractor

    part = Extractor(model).extract_model([INPUT], [OUTPUT])
    part.ir_version = model.ir_version
    return part


def write_facts(model: "ModelProto", facts: ExportedFacts) -> None:
    """Put the facts into the model's entries, in place of what torch has written there."""
    from onnx.helper import set_model_props

    set_model_props(model, facts.to_metadata())
    model.producer_name = "mgre"


def describe_operations(model: "ModelProto") -> Sequence[str]:
    """The kinds of operations in the graph, sorted."""
    return sorted({node.op_type for node in model.graph.node})


def _backbone(network: ExportedNetwork) -> str:
    backbone = network.network.backbone
    staged = getattr(backbone, "staged", backbone)
    return type(getattr(staged, "bottom_up", staged)).__name__


def _not_exportable(network: ExportedNetwork, reason: str) -> ConfigError:
    return ConfigError(
        f"the model with backbone {_backbone(network)} cannot be exported ({printable(reason)}); train one with "
        "another backbone, such as build_resnet_backbone"
    )


def _missing_operation(error: Exception) -> str:
    found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(error))
    return f"ONNX has no operation for torch's {found[1]}" if found else _reason(error)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, which are about its own versions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
