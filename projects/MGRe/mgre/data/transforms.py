"""The toolbox's INPUT augmentations, and registered ones, for an image together with its 17 key points.

Points are (x, y) in pixels of the present image, x to the right, y down, and continuous: pixel column i spans
[i, i + 1]. Sizes are (H, W). Trust says whether a point may be used: a point that leaves the image, or whose pixels
are erased, loses it and never gets it back.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from fastreid.config import CfgNode
from fastreid.data.transforms import ToTensor, build_transforms
from fvcore.common.registry import Registry
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, InterpolationMode, v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import KeyPoints

from mgre.data.keypoints import FLIP_PAIRS, NUM_KEYPOINTS
from mgre.errors import ConfigError

# Augmentations of the toolbox that move or paste pixels by rules the key points cannot follow.
PIXEL_ONLY_KEYS = ("AUTOAUG", "AUGMIX", "RPT")
# Classes or functions that make a KeypointStep from the config, by the names that INPUT.AUGMENTATIONS takes.
AUGMENTATION_REGISTRY = Registry("AUGMENTATIONS")

# A PIL image at the beginning of a chain, a (C, H, W) tensor at its end; each step takes what its place gives it.
Pixels = Any
Transformed = tuple[Pixels, KeyPoints, Tensor]


class KeypointStep(Protocol):
    """One augmentation: image, (17, 2) points, (17,) trust -> the same three."""

    def __call__(self, image: Pixels, points: KeyPoints, trusted: Tensor) -> Transformed: ...


class KeypointTransforms:
    """A chain of augmentations that carries an image's key points along."""

    def __init__(self, steps: Sequence[KeypointStep]) -> None:
        self.steps = tuple(steps)

    def __call__(self, image: Image.Image, points_px: Tensor, trusted: Tensor) -> tuple[Tensor, Tensor]:
        """Transform an image and its key points.

        Args:
            image: RGB.
            points_px: (17, 2) x, y in pixels of ``image``.
            trusted: (17,) bool.

        Returns:
            The image, (3, H, W) float32 from 0 to 255, and the key points, (17, 3) float32: x and y normalised to
            [0, 1] by its width and height, and 1.0 where the point is trusted, else 0.0.
        """
        points = KeyPoints(points_px, canvas_size=(image.height, image.width), dtype=torch.float32)
        pixels: Pixels = image
        trusted = trusted & _inside(points)
        for step in self.steps:
            pixels, points, trusted = step(pixels, points, trusted)
            trusted = trusted & _inside(points)
        height, width = points.canvas_size
        points_norm = points.as_subclass(Tensor) / torch.tensor([width, height])
        return pixels, torch.cat([points_norm, trusted[:, None].float()], dim=1)


class Follow:
    """A torchvision transform that also moves the points; :class:`KeypointTransforms` checks which stay inside."""

    def __init__(self, transform: v2.Transform) -> None:
        self.transform = transform

    def __call__(self, image: Pixels, points: KeyPoints, trusted: Tensor) -> Transformed:
        image, points = self.transform(image, points)
        return image, points, trusted


class RandomFlip:
    """Mirror the image and its points, and swap the left with the right points."""

    def __init__(self, prob: float) -> None:
        self.prob = prob
        self.mirrored = torch.arange(NUM_KEYPOINTS)
        for left, right in FLIP_PAIRS:
            self.mirrored[left], self.mirrored[right] = right, left

    def __call__(self, image: Pixels, points: KeyPoints, trusted: Tensor) -> Transformed:
        if torch.rand(()) >= self.prob:
            return image, points, trusted
        # Not torchvision's flip of points, which takes x for a pixel's index (W - 1 - x); its resize and affine do not.
        width = points.canvas_size[1]
        flipped = points.as_subclass(Tensor)[self.mirrored] * torch.tensor([-1.0, 1.0]) + torch.tensor([width, 0.0])
        return (
            F.horizontal_flip(image),
            KeyPoints(flipped, canvas_size=points.canvas_size),
            trusted[self.mirrored],
        )


class Pad:
    """Pad the image by ``size`` pixels. torchvision moves points in mode "constant" only, but all modes move alike."""

    def __init__(self, size: int | list[int], mode: str) -> None:
        self.size = size
        self.mode = mode

    def __call__(self, image: Pixels, points: KeyPoints, trusted: Tensor) -> Transformed:
        return F.pad(image, self.size, padding_mode=self.mode), F.pad(points, self.size), trusted


class RandomErasing:
    """Erase a random box of an image tensor; the points in the box can no longer be seen, so they lose their trust."""

    def __init__(self, prob: float, value: Sequence[float] | float | str) -> None:
        self.prob = prob
        self.erasing = v2.RandomErasing(value=value)

    def __call__(self, image: Pixels, points: KeyPoints, trusted: Tensor) -> Transformed:
        if torch.rand(()) >= self.prob:
            return image, points, trusted
        box = self.erasing.make_params([image])
        if box["v"] is None:  # no box of the wanted size fits into the image
            return image, points, trusted
        hidden = covers((box["i"], box["j"], box["h"], box["w"]), points.as_subclass(Tensor))
        return F.erase(image, **box), points, trusted & ~hidden


class WithoutKeypoints:
    """An augmentation that carries key points, for an image that has none."""

    def __init__(self, step: KeypointStep) -> None:
        self.step = step

    def __call__(self, image: Image.Image) -> Image.Image:
        points = KeyPoints(torch.zeros(NUM_KEYPOINTS, 2), canvas_size=(image.height, image.width))
        return self.step(image, points, torch.zeros(NUM_KEYPOINTS, dtype=torch.bool))[0]


def build_image_transforms(cfg: CfgNode, *, is_train: bool) -> Compose:
    """The toolbox's ``build_transforms``, with the registered augmentations at their place in the order."""
    transforms = build_transforms(cfg, is_train=is_train)
    if is_train:
        end = next(i for i, step in enumerate(transforms.transforms) if isinstance(step, ToTensor))
        transforms.transforms[end:end] = [WithoutKeypoints(step) for step in _registered_steps(cfg)]
    return transforms


def _registered_steps(cfg: CfgNode) -> list[KeypointStep]:
    """Those of INPUT.AUGMENTATIONS. They come after the toolbox's augmentations of PIL images."""
    return [AUGMENTATION_REGISTRY.get(name)(cfg) for name in cfg.INPUT.AUGMENTATIONS]


def build_keypoint_transforms(cfg: CfgNode, *, is_train: bool) -> KeypointTransforms:
    """The toolbox's ``build_transforms`` with key points: the same INPUT keys, order and, in evaluation, pixels.

    Raises:
        ConfigError: training asks for an augmentation that key points cannot follow.
    """
    return KeypointTransforms(_train_steps(cfg) if is_train else _test_steps(cfg))


def _train_steps(cfg: CfgNode) -> list[KeypointStep]:
    options = cfg.INPUT
    for key in PIXEL_ONLY_KEYS:
        if options[key].ENABLED:
            raise ConfigError(
                f"INPUT.{key}.ENABLED is True, but key points cannot follow this augmentation; "
                "set it to False, or train without key points with MODEL.MGRE.LOCATION.LOSS_WEIGHT 0"
            )
    steps: list[KeypointStep] = []
    if options.SIZE_TRAIN[0] > 0:
        steps.append(_resize(options.SIZE_TRAIN))
    if options.CROP.ENABLED:
        crop = v2.RandomResizedCrop(
            _size(options.CROP.SIZE),
            scale=options.CROP.SCALE,
            ratio=options.CROP.RATIO,
            interpolation=InterpolationMode.BICUBIC,
        )
        steps.append(Follow(crop))
    if options.PADDING.ENABLED:
        steps.append(Pad(options.PADDING.SIZE, options.PADDING.MODE))
        steps.append(Follow(v2.RandomCrop(_size(options.SIZE_TRAIN))))
    if options.FLIP.ENABLED:
        steps.append(RandomFlip(options.FLIP.PROB))
    if options.CJ.ENABLED:
        jitter = v2.ColorJitter(options.CJ.BRIGHTNESS, options.CJ.CONTRAST, options.CJ.SATURATION, options.CJ.HUE)
        steps.append(Follow(v2.RandomApply([jitter], p=options.CJ.PROB)))
    if options.AFFINE.ENABLED:
        # The toolbox's fixed ranges; it has no keys for them.
        steps.append(Follow(v2.RandomAffine(degrees=10, scale=(0.9, 1.1), shear=0.1)))
    steps.extend(_registered_steps(cfg))
    steps.extend(_to_tensor())
    if options.REA.ENABLED:
        steps.append(RandomErasing(options.REA.PROB, options.REA.VALUE))
    return steps


def _test_steps(cfg: CfgNode) -> list[KeypointStep]:
    steps: list[KeypointStep] = []
    if cfg.INPUT.SIZE_TEST[0] > 0:
        steps.append(_resize(cfg.INPUT.SIZE_TEST))
    if cfg.INPUT.CROP.ENABLED:
        steps.append(Follow(v2.CenterCrop(_size(cfg.INPUT.CROP.SIZE))))
    return steps + _to_tensor()


def _resize(size: Sequence[int]) -> Follow:
    return Follow(v2.Resize(_size(size), interpolation=InterpolationMode.BICUBIC))


def _to_tensor() -> list[KeypointStep]:
    """PIL image to float32 (C, H, W) from 0 to 255, as the toolbox's models expect."""
    return [Follow(v2.PILToTensor()), _arrange_by_channel, Follow(v2.ToDtype(torch.float32, scale=False))]


def _arrange_by_channel(image: Tensor, points: KeyPoints, trusted: Tensor) -> tuple[Tensor, KeyPoints, Tensor]:
    """Let each channel lie in one piece. In PIL's order, pixel by pixel, collation takes ten times as long."""
    return image.contiguous(), points, trusted


def _size(size: Sequence[int]) -> int | list[int]:
    """A size of the config: (H, W), or one number, the shorter side."""
    return size[0] if len(size) == 1 else list(size)


def _inside(points: KeyPoints) -> Tensor:
    """(17,) bool: the point lies in the image, its border included."""
    return covers((0, 0, *points.canvas_size), points.as_subclass(Tensor))


def covers(box: tuple[int, int, int, int], points: Tensor) -> Tensor:
    """(17,) bool: the point of ``points`` (17, 2) lies in the box (top, left, height, width), its border included."""
    top, left, height, width = box
    x, y = points.unbind(dim=1)
    return (x >= left) & (x <= left + width) & (y >= top) & (y <= top + height)
