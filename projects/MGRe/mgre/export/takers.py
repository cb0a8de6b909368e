"""How other runtimes cut, resize and feed a crop, re-made from their sources and manuals.

None of them is imported. The tests that have BoxMOT and Ultralytics compare with the originals.

Boxes are (x_min, y_min, x_max, y_max) in pixels of the frame, x to the right, y down.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from mgre.errors import ConfigError
from mgre.inference.flavours import Flavour
from mgre.inference.model import Model
from mgre.inference.preparation import prepare, to_image
from mgre.record import ModelRecord

# Ultralytics enlarges a box by this factor, and by these pixels in all, before it cuts.
_GAIN, _PAD = 1.02, 10


@dataclass(frozen=True)
class Taker:
    """A runtime that takes a model.

    Attributes:
        name: as in ``--as``.
        flavours: the inputs that it can feed.
        resize: RGB pixels (h, w, 3) uint8 and (H, W) to (H, W, 3), 0 to 255: uint8, or float32 where it does not round.
        facts: its resizing, in words.
    """

    name: str
    flavours: tuple[str, ...]
    resize: Callable[[np.ndarray, tuple[int, int]], np.ndarray]
    facts: str

    def prepare(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """A crop (h, w, 3), uint8, RGB, to (3, H, W), RGB, 0 to 255."""
        return np.ascontiguousarray(self.resize(image, size).transpose(2, 0, 1))


def _opencv(interpolation: int) -> Callable[[np.ndarray, tuple[int, int]], np.ndarray]:
    return lambda image, size: cv2.resize(image, (size[1], size[0]), interpolation=interpolation)


def _torch_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    pixels = torch.tensor(image).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()


TAKERS = {
    taker.name: taker
    for taker in (
        Taker("boxmot", ("imagenet",), _opencv(cv2.INTER_LINEAR), "OpenCV, bilinear"),
        Taker("ultralytics", ("unit-rgb",), _torch_bilinear, "torch, bilinear, not rounded"),
        # The GPU's scaler is bilinear; which rounding it has is not published.
        Taker("deepstream", ("raw-rgb", "raw-bgr"), _opencv(cv2.INTER_LINEAR), "bilinear, keepAspc 0"),
        Taker("openvino", ("raw-bgr",), _opencv(cv2.INTER_LINEAR), "OpenCV, bilinear"),
        Taker("fastreid", ("raw-rgb",), _opencv(cv2.INTER_CUBIC), "OpenCV, bicubic"),
    )
}


def find_taker(name: str, flavour: Flavour, path: str) -> Taker:
    """The runtime ``name``, for the file ``path`` of a flavour.

    Raises:
        ConfigError: it feeds other values than the file expects.
    """
    taker = TAKERS[name]
    if flavour.name not in taker.flavours:
        fitting = [other.name for other in TAKERS.values() if flavour.name in other.flavours]
        raise ConfigError(
            f"'{path}' is exported with --input {flavour.name}, which {name} does not feed: export it with --input "
            f"{taker.flavours[0]}, or evaluate it as {' or '.join(fitting)}"
        )
    return taker


def box_of(name: str, box: Sequence[float], frame_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What BoxMOT or Ultralytics cut out of a frame for a box, in whole pixels.

    Args:
        name: "boxmot" or "ultralytics".
        box: of the detector.
        frame_size: (H, W).
    """
    x_min, y_min, x_max, y_max = box
    if name == "ultralytics":
        width, height = (x_max - x_min) * _GAIN + _PAD, (y_max - y_min) * _GAIN + _PAD
        x, y = (x_min + x_max) / 2, (y_min + y_max) / 2
        whole = [math.trunc(side) for side in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)]
    else:
        whole = [round(side) for side in box]
    height, width = frame_size
    left, right = (min(max(side, 0), width) for side in (whole[0], whole[2]))
    top, bottom = (min(max(side, 0), height) for side in (whole[1], whole[3]))
    return left, top, right, bottom


def embed_as(model: Model, taker: Taker | None, paths: Sequence[str], *, batch_size: int = 32) -> np.ndarray:
    """The features (N, D) of images of one person each, as a runtime gives them.

    Args:
        model: an exported file; where ``taker`` is None, any.
        taker: None: this package.

    Raises:
        ImageError: an image cannot be read.
    """
    parts = []
    for start in range(0, len(paths), batch_size):
        batch = np.stack([_prepare(path, model.record, taker) for path in paths[start : start + batch_size]])
        parts.append(model.embed_pixels(batch))
    return np.concatenate(parts)


def _prepare(path: str, record: ModelRecord, taker: Taker | None) -> np.ndarray:
    if taker is None:
        return prepare(path, record)
    return taker.prepare(np.asarray(to_image(path)), record.center_crop or record.input_size)
