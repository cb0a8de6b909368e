"""The interface of every pose model: crops in, key points out.

Legend: N crops, K = 17 COCO key points (see :mod:`mgre.data.keypoints`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fvcore.common.registry import Registry

from mgre.data.findings import Finding
from mgre.data.keypoints import ImageKeypoints

POSE_MODELS = Registry("POSE_MODELS")
POSE_MODELS.__doc__ = """Pose models by the name that ``tools/extract_keypoints.py --model`` takes.

An entry is called with the keyword arguments ``weights`` (a path, or empty for the published ones) and ``device``
("cpu", "cuda", "cuda:0"), and returns a :class:`PoseModel`.
"""


class PoseModel(ABC):
    """Finds the K key points of the one person in each crop.

    The preparation of a crop is a method of its own, so that other threads can call it; ``model([crop])`` does both.

    Attributes:
        fingerprint: the weights and settings in words; models with equal fingerprints give equal points.
    """

    fingerprint: str

    @abstractmethod
    def prepare(self, crop: np.ndarray) -> Any:
        """The input of :meth:`predict` for one crop (H, W, 3), RGB uint8, of any size. May run in any thread."""

    @abstractmethod
    def predict(self, prepared: Sequence[Any]) -> np.ndarray:
        """(N, K, 3) float32: x, y in pixels of each crop (x to the right, y down; the centre of the first pixel is at
        0, 0), and the model's score, 0 or more. Points may lie outside the crop."""

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Crops (H, W, 3), RGB uint8, each of its own size, to (N, K, 3): see :meth:`predict`."""
        return self.predict([self.prepare(crop) for crop in crops])


@dataclass
class FoundKeypoints:
    """The key points of a data set's images, found or imported.

    Attributes:
        keypoints: by ``file_name``, relative to the images' folder.
        faulty: the reason why an image was skipped, by ``file_name``.
        findings: what speaks against imported key points.
    """

    keypoints: dict[str, ImageKeypoints] = field(default_factory=dict)
    faulty: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
