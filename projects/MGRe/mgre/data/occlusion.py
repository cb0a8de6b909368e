"""Occluded test images (Table 6): a box of an image is erased, the same box in every run and for every model.

Boxes are (top, left, height, width).
"""

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from mgre.data.keypoints import file_name_of
from mgre.data.transforms import covers

# Random erasing as published (Zhong et al., AAAI 2020): share of the image's area, and height by width. (A choice: the
# paper names neither. torchvision's erasing, with which the toolbox trains, ends at a share of 0.33.)
AREA = (0.02, 0.4)
ASPECT = (0.3, 1 / 0.3)
# Height by width of the paper's input, in which the boxes have these aspect ratios.
IMAGE_ASPECT = 2.0


class Occlusion:
    """Erases a box of some images of a data set. The choice of the images and their boxes follows from the seed and the
    image's file name in the data set's folder alone.

    Args:
        folder: the data set's folder.
        prob: probability of an image to be occluded.
        seed: any whole number.
        value: of the erased pixels, for each channel, 0 to 255.
    """

    def __init__(self, *, folder: str, prob: float, seed: int, value: Sequence[float]) -> None:
        self.folder = folder
        self.prob = prob
        self.seed = seed
        self.value = torch.tensor(value).reshape(-1, 1, 1)

    def __call__(self, path: str, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        """Occlude an image that has been transformed.

        Args:
            path: the image file.
            sample: "images" (3, H, W); and perhaps "keypoints" (17, 3): x and y, normalised, and trust. The points in
                the box lose their trust.
        """
        box = draw_box(f"{self.seed} {file_name_of(path, self.folder)}", self.prob)
        if box is None:
            return sample
        height, width = sample["images"].shape[-2:]
        box_px = _to_pixels(box, height, width)
        occluded = sample | {"images": F.erase(sample["images"], *box_px, self.value)}
        if "keypoints" in sample:
            keypoints = sample["keypoints"].clone()
            keypoints[covers(box_px, keypoints[:, :2] * torch.tensor([width, height])), 2] = 0
            occluded["keypoints"] = keypoints
        return occluded


def draw_box(key: str, prob: float) -> tuple[float, float, float, float] | None:
    """The box to erase, normalised by the image's height and width, or None, with probability 1 - ``prob``.

    The same key gives the same box in every version of Python, at every input size. The box comes from a generator of
    its own, because torch's generator, from which torchvision's erasing draws, also depends on other threads and on the
    number of workers.
    """
    rng = random.Random(key)
    if rng.random() >= prob:
        return None
    while True:  # until the box fits into the image, as published
        area = rng.uniform(*AREA)
        aspect = math.exp(rng.uniform(*map(math.log, ASPECT))) / IMAGE_ASPECT
        height, width = math.sqrt(area * aspect), math.sqrt(area / aspect)
        top, left = rng.random() * (1 - height), rng.random() * (1 - width)
        if height < 1 and width < 1:
            return top, left, height, width


def _to_pixels(box: tuple[float, float, float, float], height: int, width: int) -> tuple[int, int, int, int]:
    top, bottom = round(box[0] * height), round((box[0] + box[2]) * height)
    left, right = round(box[1] * width), round((box[1] + box[3]) * width)
    return top, left, bottom - top, right - left
