"""Maps a crop to a pose model's input of fixed size, and points on the input back to the crop.

Points are (x, y), sizes are (H, W), both in pixels; x to the right, y down, the centre of the first pixel at (0, 0).
"""

from dataclasses import dataclass

import cv2
import numpy as np

# Colour statistics of ImageNet, RGB, for values from 0 to 1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class CropTransform:
    """Puts a whole crop in the middle of a model's input, with its aspect ratio and a margin around it.

    HRNet's authors do the same with a person's box (``get_affine_transform`` in their code). Here the box is the crop.

    Attributes:
        input_size: (H, W) of the model's input.
        margin: the input shows this many times the crop's longer side, relative to the input's.
        mean, std: RGB, for values from 0 to 1.
    """

    input_size: tuple[int, int] = (256, 192)
    margin: float = 1.25
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def to_input(self, crop: np.ndarray) -> np.ndarray:
        """Crop (H, W, 3), RGB uint8, to (3, *input_size), float32, normalised; black around the crop."""
        height, width = self.input_size
        scale, offset = self._scale_and_offset(crop.shape[:2])
        matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
        warped = cv2.warpAffine(crop, matrix, (width, height), flags=cv2.INTER_LINEAR).astype(np.float32) / 255
        normalised = (warped - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))

    def to_crop(self, points: np.ndarray, crop_size: tuple[int, int]) -> np.ndarray:
        """Points (..., 2) on the input to the crop of ``crop_size``."""
        scale, offset = self._scale_and_offset(crop_size)
        return (points - offset) / scale

    def _scale_and_offset(self, crop_size: tuple[int, int]) -> tuple[float, np.ndarray]:
        """A point p of the crop is at ``scale p + offset`` on the input."""
        sides = np.array(self.input_size[::-1], dtype=np.float64)
        crop_sides = np.array(crop_size[::-1], dtype=np.float64)
        scale = float((sides / crop_sides).min()) / self.margin
        return scale, (sides - scale * crop_sides) / 2
