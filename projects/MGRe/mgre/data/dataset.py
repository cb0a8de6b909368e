"""Torch data sets: the toolbox's, with errors that name the image, and one that carries key points."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from fastreid.data.common import CommDataset
from PIL import Image, ImageOps
from torch import Tensor

from mgre.data.keypoints import NUM_KEYPOINTS, ImageKeypoints
from mgre.data.transforms import KeypointTransforms
from mgre.errors import DataError


class ImageError(DataError):
    """An image cannot be read, or does not fit its key points.

    A DataLoader raises a worker's exception anew, with the worker's traceback as its message: only the last line of
    that, which is ours, is kept.
    """

    def __init__(self, message: str) -> None:
        last_line = message.rstrip().rsplit("\n", 1)[-1]
        super().__init__(last_line.removeprefix(f"{__name__}.{type(self).__name__}: "))


class ReIDDataset(CommDataset):
    """The toolbox's ``CommDataset``; an image that cannot be read raises :class:`ImageError`, in workers too.

    Items are (path, identity, camera). Samples are dicts: ``images`` (3, H, W), ``targets``, ``camids``, ``img_paths``.

    Attributes:
        occlusion: if it is set, what :meth:`load` gives goes through it, with the image's path.
    """

    occlusion: Callable[[str, dict[str, Tensor]], dict[str, Tensor]] | None = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, identity, camera = self.img_items[index]
        loaded = self.load(path)
        return {
            **(loaded if self.occlusion is None else self.occlusion(path, loaded)),
            "targets": self.pid_dict[identity] if self.relabel else identity,
            "camids": self.cam_dict[camera] if self.relabel else camera,
            "img_paths": path,
        }

    def load(self, path: str) -> dict[str, Tensor]:
        """What of a sample comes from the image file."""
        image = load_image(path)
        return {"images": image if self.transform is None else self.transform(image)}


class KeypointDataset(ReIDDataset):
    """Adds ``keypoints`` to the samples: (17, 3) float32, x and y normalised to [0, 1] by the width and height of the
    transformed image, and 1.0 where the point is trusted, else 0.0.

    Args:
        img_items: (path, identity, camera).
        transform: moves the key points with the pixels.
        keypoints: by path; the points of images that are missing here are not trusted.
        min_score: points of a lower score are not trusted.
        relabel: number identities and cameras from 0, as training needs.
    """

    def __init__(
        self,
        img_items: Sequence[tuple[str, Any, Any]],
        transform: KeypointTransforms,
        *,
        keypoints: Mapping[str, ImageKeypoints],
        min_score: float,
        relabel: bool = True,
    ) -> None:
        super().__init__(img_items, transform, relabel=relabel)
        self.keypoints = keypoints
        self.min_score = min_score

    def load(self, path: str) -> dict[str, Tensor]:
        image = load_image(path)
        found = self.keypoints.get(path)
        if found is None:
            points_px = torch.zeros(NUM_KEYPOINTS, 2)
            trusted = torch.zeros(NUM_KEYPOINTS, dtype=torch.bool)
        else:
            if found.size != (image.height, image.width):
                raise ImageError(
                    f"Image '{path}' has {image.width} x {image.height} pixels (width x height), but its key points "
                    f"are for {found.size[1]} x {found.size[0]}; find them again in these images"
                )
            points_px = torch.from_numpy(found.points[:, :2])
            trusted = torch.from_numpy(found.trusted(self.min_score))
        image, keypoints = self.transform(image, points_px, trusted)
        return {"images": image, "keypoints": keypoints}


def load_image(path: str) -> Image.Image:
    """Read an image as RGB, turned as its EXIF data say.

    Not through the toolbox's ``read_image``, which swallows decoding errors and gives black pixels for what is broken.

    Raises:
        ImageError: it is missing, empty, cut short or not an image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return _upright(image).convert("RGB")
    except Exception as error:  # decoders raise many kinds, and each means that this file is at fault
        raise ImageError(
            f"Image '{path}' {_fault(path, error)}; copy it again or remove it from the data set"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data say nothing against the pixels
        return image


def _fault(path: str, error: Exception) -> str:
    if not os.path.exists(path):
        return "does not exist"
    if os.path.getsize(path) == 0:
        return "is empty (0 bytes)"
    reason = " ".join(str(error).split())
    return f"cannot be read ({reason})"
