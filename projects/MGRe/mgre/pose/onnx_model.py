"""Pose models in ONNX files: any model with 17 heatmaps, or with two SimCC vectors for each of 17 key points.

Legend: N crops, K = 17 COCO key points, (H, W) the model's input size, (h, w) a heatmap's, Wx and Hy the lengths of
the SimCC vectors of x and of y.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from mgre.data.keypoints import NUM_KEYPOINTS
from mgre.errors import WeightsError
from mgre.pose.base import POSE_MODELS, PoseModel
from mgre.pose.crops import CropTransform
from mgre.pose.decoding import decode_heatmaps, decode_simcc
from mgre.system.download import file_sha256
from mgre.system.onnx_session import first_line, open_session

if TYPE_CHECKING:
    from onnxruntime import NodeArg

EXPECTED = (
    f"expected is one image (N, 3, H, W), float32, of fixed H and W, and either one output of {NUM_KEYPOINTS} heatmaps "
    f"(N, {NUM_KEYPOINTS}, h, w) or two of SimCC vectors (N, {NUM_KEYPOINTS}, length), the lengths in proportion to W "
    "and H; choose or export such a model"
)


@POSE_MODELS.register()
def onnx(*, weights: str, device: str) -> PoseModel:
    """Any pose model in an ONNX file: see :class:`OnnxPoseModel`."""
    if not weights:
        raise WeightsError("the pose model 'onnx' has no published weights: give an .onnx file with --weights")
    return OnnxPoseModel(OnnxNetwork(weights, device=device), fingerprint=f"onnx {file_sha256(weights)[:16]}")


class OnnxNetwork:
    """An ONNX pose model, a batch of inputs to heatmaps or to SimCC vectors; the file tells which.

    Attributes:
        input_size: (H, W), pixels.
        split_ratio: bins of the SimCC vectors for each pixel of the input; None if the outputs are heatmaps.

    Args:
        weights: the .onnx file.
        device: "cpu", "cuda", "cuda:0".

    Raises:
        WeightsError: the file does not exist, is no ONNX model, or has other inputs or outputs.
        SetupError: onnxruntime is missing, or cannot use the device.
    """

    def __init__(self, weights: str, *, device: str) -> None:
        self._session = open_session(weights, device=device, threads=torch.get_num_threads())
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or not _is_image(inputs[0]):
            found = ", ".join(f"'{node.name}' {node.shape} {node.type}" for node in inputs)
            raise WeightsError(f"weight file '{weights}' is a model of input {found}; {EXPECTED}")
        self._input_name = inputs[0].name
        batch_size, _, *input_size = inputs[0].shape
        self.input_size: tuple[int, int] = tuple(input_size)
        self._batch_size = batch_size if isinstance(batch_size, int) else None

        self._output_names = [node.name for node in self._session.get_outputs()]
        shapes = self._output_shapes(weights)
        self.split_ratio: float | None
        if len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][0] == NUM_KEYPOINTS:
            self.split_ratio = None
        elif ratio := self._order_simcc(shapes):
            self.split_ratio = ratio
        else:
            found = ", ".join(f"'{name}' {shape}" for name, shape in zip(self._output_names, shapes, strict=True))
            raise WeightsError(f"weight file '{weights}' is a model of output {found} for each image; {EXPECTED}")

    def __call__(self, inputs: np.ndarray) -> list[np.ndarray]:
        """Inputs (N, 3, H, W), float32, to [heatmaps (N, K, h, w)] or to [x (N, K, Wx), y (N, K, Hy)]."""
        batch_size = self._batch_size or len(inputs)
        padding = np.zeros((-len(inputs) % batch_size, *inputs.shape[1:]), dtype=np.float32)
        padded = np.concatenate([inputs, padding])
        batches = [padded[start : start + batch_size] for start in range(0, len(padded), batch_size)]
        runs = [self._session.run(self._output_names, {self._input_name: batch}) for batch in batches]
        return [np.concatenate(parts)[: len(inputs)] for parts in zip(*runs, strict=True)]

    def _output_shapes(self, weights: str) -> list[tuple[int, ...]]:
        """The shape of each output for one crop, found by a run: files often declare names instead of numbers."""
        probe = np.zeros((self._batch_size or 2, 3, *self.input_size), dtype=np.float32)
        try:
            outputs = self._session.run(self._output_names, {self._input_name: probe})
        except Exception as error:  # the classes of onnxruntime's errors have no common base
            raise WeightsError(
                f"weight file '{weights}': the model fails on {len(probe)} empty images of its input size "
                f"({first_line(error)}); export it again"
            ) from error
        return [np.shape(output)[1:] if np.shape(output)[:1] == (len(probe),) else () for output in outputs]

    def _order_simcc(self, shapes: Sequence[tuple[int, ...]]) -> float | None:
        """Put the output of x before that of y; returns the split ratio, or None if these are no SimCC vectors."""
        if [shape[:-1] for shape in shapes] != [(NUM_KEYPOINTS,)] * 2:
            return None
        height, width = self.input_size
        first, second = (shape[-1] for shape in shapes)
        # Both vectors of a square input have the same length, but their names may tell x from y.
        by_name = [name.lower()[-1:] for name in self._output_names] == ["y", "x"]
        if first * width == second * height and (height != width or by_name):
            self._output_names.reverse()
            first, second = second, first
        return first / width if first * height == second * width else None


class OnnxPoseModel(PoseModel):
    """Key points by an :class:`OnnxNetwork` whose input is an RGB crop normalised by ImageNet's statistics, like the
    models that mmdeploy exports from mmpose.

    Args:
        network: the model.
        fingerprint: see :class:`PoseModel`.
    """

    def __init__(self, network: OnnxNetwork, *, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._network = network
        self._transform = CropTransform(network.input_size)

    def prepare(self, crop: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        """The input (3, H, W), float32, and the crop's own (H, W)."""
        return self._transform.to_input(crop), crop.shape[:2]

    def predict(self, prepared: Sequence[tuple[np.ndarray, tuple[int, int]]]) -> np.ndarray:
        if not prepared:
            return np.zeros((0, NUM_KEYPOINTS, 3), dtype=np.float32)
        inputs, crop_sizes = zip(*prepared, strict=True)
        outputs = self._network(np.stack(inputs))
        if self._network.split_ratio is None:
            points = decode_heatmaps(outputs[0])
            cells = outputs[0].shape[2:]
            points[..., :2] *= np.divide(self._network.input_size, cells)[::-1]
        else:
            x, y = outputs
            points = decode_simcc(x, y, self._network.split_ratio)
        for crop_points, crop_size in zip(points, crop_sizes, strict=True):
            crop_points[:, :2] = self._transform.to_crop(crop_points[:, :2], crop_size)
        return points


def _is_image(node: "NodeArg") -> bool:
    """Whether an input is (N, 3, H, W), float32, of fixed size. A dimension that may vary is a name or None."""
    shape = node.shape
    fixed = all(isinstance(side, int) for side in shape[1:])
    return len(shape) == 4 and shape[1] == 3 and fixed and node.type == "tensor(float)"
