"""The files that a runtime reads beside an exported model, by the runtime's own documented keys."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from mgre.inference.flavours import Flavour


@dataclass(frozen=True)
class Sidecar:
    """A file beside an exported model.

    Attributes:
        path: of the file.
        text: its content.
        purpose: what to do with it, for the user.
    """

    path: str
    text: str
    purpose: str


def make_sidecars(
    path: str, flavour: Flavour, *, size: tuple[int, int], dim: int, normalized: bool, precision: str
) -> list[Sidecar]:
    """The files for the takers of a flavour.

    Args:
        path: of the exported .onnx file.
        size: (H, W) of its input.
        dim: numbers of a feature.
        normalized: whether the features have length 1.
        precision: "fp32", "fp16" or "int8".
    """
    makers = {
        "boxmot": lambda: _boxmot(path, size),
        "ultralytics": lambda: _ultralytics(path),
        "deepstream": lambda: _deepstream(path, flavour, size, dim, normalized, precision),
    }
    return [makers[taker]() for taker in flavour.takers if taker in makers]


def _boxmot(path: str, size: Sequence[int]) -> Sidecar:
    content = {
        "schema_version": 1,
        "model_name": "mgre",  # without a name, BoxMOT looks for those of its own models in the file's name
        "num_classes": 1,
        "preprocess": "resize",
        "model_kwargs_schema_version": 1,
        "model_kwargs": {"img_size": list(size)},
    }
    return Sidecar(f"{path}.metadata.json", json.dumps(content, indent=2) + "\n", "BoxMOT reads it beside the model")


def _ultralytics(path: str) -> Sidecar:
    text = (
        "# Of a tracker's file of Ultralytics, such as botsort.yaml: these two lines in place of its own.\n"
        f"with_reid: True\nmodel: {json.dumps(os.path.abspath(path))}\n"
    )
    return Sidecar(f"{_stem(path)}.ultralytics.yaml", text, "two lines for a tracker's YAML of Ultralytics")


def _deepstream(
    path: str, flavour: Flavour, size: tuple[int, int], dim: int, normalized: bool, precision: str
) -> Sidecar:
    mode = 1 if precision == "fp16" else 0
    text = f"""# In the configuration of NvDCF or NvDeepSORT, in place of its block of this name.
ReID:
  reidType: 2                 # re-association; 1 for NvDeepSORT
  onnxFile: {json.dumps(os.path.abspath(path))}
  modelEngineFile: {json.dumps(os.path.abspath(_stem(path)) + ".engine")}
  batchSize: 100
  workspaceSize: 1000
  reidFeatureSize: {dim}
  reidHistorySize: 100
  inferDims: [3, {size[0]}, {size[1]}]
  networkMode: {mode}              # fp32 0, fp16 1
  inputOrder: 0               # NCHW
  colorFormat: {0 if flavour.channels == "RGB" else 1}              # RGB 0, BGR 1
  offsets: [0.0, 0.0, 0.0]    # the graph subtracts the mean
  netScaleFactor: 1.0         # and divides by the standard deviation
  keepAspc: 0                 # the crop is stretched, as in the training
  addFeatureNormalization: {0 if normalized else 1}
"""
    return Sidecar(f"{_stem(path)}.deepstream.yml", text, "the ReID block of a DeepStream tracker")


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]
