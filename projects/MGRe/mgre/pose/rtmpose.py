"""RTMPose (arXiv:2303.07399) through the package rtmlib: the whole crop is the person's box.

Legend: N crops, K = 17 COCO key points, (H, W) the model's input size.
"""

import importlib.metadata
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from mgre.data.keypoints import NUM_KEYPOINTS
from mgre.errors import SetupError, WeightsError
from mgre.pose.base import POSE_MODELS, PoseModel
from mgre.pose.crops import IMAGENET_MEAN, IMAGENET_STD
from mgre.pose.onnx_model import OnnxNetwork
from mgre.system.download import download, file_sha256

if TYPE_CHECKING:
    from rtmlib import RTMPose

# RTMPose-m, trained on seven data sets of bodies, the model of rtmlib's `Body`. OpenMMLab publishes no checksum: the
# digits in the name belong to the checkpoint that was exported. The checksum here is the one that several independent
# projects have found for the .onnx file in this archive.
WEIGHTS_URL = (
    "https://download.openmmlab.com/mmpose/v1/projects/rtmposev1/onnx_sdk/"
    "rtmpose-m_simcc-body7_pt-body7_420e-256x192-e48f03d0_20230504.zip"
)
WEIGHTS_MEMBER = "end2end.onnx"
WEIGHTS_SHA256 = "5c0a4bf67953e6d2ac43ce15e77dc9d5d354ae18430a47d2c5963a7bc5683e3c"
WEIGHTS_SIZE = 54_330_655

# An input, and the centre (x, y) and the size (width, height) in pixels of the part of the crop in this input.
Prepared = tuple[np.ndarray, np.ndarray, np.ndarray]


@POSE_MODELS.register()
def rtmpose(*, weights: str, device: str) -> PoseModel:
    """RTMPose of 17 key points, of any size: see :class:`RTMPoseModel`. Published weights: RTMPose-m, 256 x 192."""
    _import_rtmlib()  # fails before the download if rtmlib is missing
    path = weights or download(WEIGHTS_URL, sha256=WEIGHTS_SHA256, size=WEIGHTS_SIZE, member=WEIGHTS_MEMBER)
    network = OnnxNetwork(path, device=device)
    if network.split_ratio is None:
        raise WeightsError(f"weight file '{path}' gives heatmaps, RTMPose SimCC vectors: choose the pose model 'onnx'")
    version = importlib.metadata.version("rtmlib")
    return RTMPoseModel(network, fingerprint=f"rtmpose {file_sha256(path)[:16]} rtmlib {version}")


class RTMPoseModel(PoseModel):
    """rtmlib's ``RTMPose`` for many crops at once: rtmlib's preprocessing, one run of the network, rtmlib's decoding.

    Crops are RGB, as in the training of RTMPose (``bgr_to_rgb`` in its configs); rtmlib does not convert colours. The
    score is rtmlib's, the mean of the two axes' maxima.

    Args:
        network: RTMPose, with SimCC outputs.
        fingerprint: see :class:`PoseModel`.
    """

    def __init__(self, network: OnnxNetwork, *, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._network = network
        self._steps = _rtmlib_steps(network.input_size)

    def prepare(self, crop: np.ndarray) -> Prepared:
        height, width = crop.shape[:2]
        image, center, scale = self._steps.preprocess(crop, [0, 0, width, height])
        return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32), center, scale

    def predict(self, prepared: Sequence[Prepared]) -> np.ndarray:
        if not prepared:
            return np.zeros((0, NUM_KEYPOINTS, 3), dtype=np.float32)
        images, centers, scales = (np.stack(part) for part in zip(*prepared, strict=True))
        outputs = self._network(images)
        points, scores = self._steps.postprocess(
            outputs, centers[:, None], scales[:, None], simcc_split_ratio=self._network.split_ratio
        )
        scores = np.where(scores > 0, scores, 0)  # NaN too
        return np.concatenate([points, scores[..., None]], axis=-1).astype(np.float32)


def _rtmlib_steps(input_size: tuple[int, int]) -> "RTMPose":
    """rtmlib's ``RTMPose`` without the network: the steps before and after it."""
    base: Any = _import_rtmlib().RTMPose

    class Steps(base):
        def __init__(self) -> None:  # the original method prints, and opens the file on all cores
            self.model_input_size = input_size[::-1]
            self.mean = 255 * np.array(IMAGENET_MEAN)
            self.std = 255 * np.array(IMAGENET_STD)

    return Steps()


def _import_rtmlib() -> ModuleType:
    try:
        import rtmlib
    except ImportError as error:
        raise SetupError(
            f"the pose model 'rtmpose' needs the package rtmlib ({error}): "
            "pip install onnxruntime && pip install --no-deps rtmlib (its requirements opencv-python and "
            "opencv-contrib-python would overwrite files of opencv-python-headless)"
        ) from error
    return rtmlib
