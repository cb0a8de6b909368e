import numpy as np
import pytest
import torch
from fastreid.data.transforms import build_transforms
from mgre.data.keypoints import COCO_KEYPOINTS
from mgre.data.transforms import (
    AUGMENTATION_REGISTRY,
    Follow,
    KeypointTransforms,
    Pad,
    RandomErasing,
    RandomFlip,
    build_image_transforms,
    build_keypoint_transforms,
)
from mgre.errors import ConfigError
from PIL import Image
from torchvision.transforms import v2
from torchvision.tv_tensors import KeyPoints

ALL_TRUSTED = torch.ones(17, dtype=torch.bool)

# Written out by hand: the index that each point gets in the mirrored image.
MIRRORED = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


def random_image(size, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def spread_points(size, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(0.15, 0.85, (17, 2)) * [size[1], size[0]]).float()


def dot_image(size, x, y, radius=4):
    """Black, with a white square whose centre is (x, y); x and y are whole numbers, i.e. between two pixels."""
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    pixels[y - radius : y + radius, x - radius : x + radius] = 255
    return Image.fromarray(pixels)


def centroid(image):
    """(x, y) of the brightness, normalised, with pixel centres at (i + 0.5)."""
    mass = image.sum(dim=0).double()
    height, width = mass.shape
    x = (mass.sum(dim=0) * (torch.arange(width) + 0.5)).sum() / mass.sum() / width
    y = (mass.sum(dim=1) * (torch.arange(height) + 0.5)).sum() / mass.sum() / height
    return torch.stack([x, y])


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("size", [[96, 48], [64], [0, 0]])
def test_evaluation_has_the_pixels_of_the_toolbox(cfg, size, crop):
    cfg.INPUT.SIZE_TEST = size
    cfg.INPUT.CROP.ENABLED = crop
    cfg.INPUT.CROP.SIZE = [40, 30]
    image = random_image((128, 50))
    ours, _ = build_keypoint_transforms(cfg, is_train=False)(image, spread_points((128, 50)), ALL_TRUSTED)
    expected = build_transforms(cfg, is_train=False)(image)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)


@pytest.mark.parametrize("keys", [["PADDING"], ["FLIP"], ["REA"], ["CJ"], ["CROP"], ["PADDING", "FLIP", "CJ", "REA"]])
def test_training_has_the_pixels_of_the_toolbox(cfg, keys):
    """Both draw the same random numbers, so the same seed must give the same image."""
    cfg.INPUT.SIZE_TRAIN = [64, 32]
    cfg.INPUT.CROP.SIZE = [64, 32]
    for key in keys:
        cfg.INPUT[key].ENABLED = True
    image = random_image((80, 30))
    ours, toolbox = build_keypoint_transforms(cfg, is_train=True), build_transforms(cfg, is_train=True)
    for seed in range(8):
        torch.manual_seed(seed)
        expected = toolbox(image)
        torch.manual_seed(seed)
        transformed, _ = ours(image, spread_points((80, 30)), ALL_TRUSTED)
        torch.testing.assert_close(transformed, expected, rtol=0, atol=0)


@pytest.mark.parametrize("key", ["none", "CROP", "PADDING", "reflect", "FLIP", "CJ", "AFFINE", "all"])
def test_points_stay_on_their_pixels(cfg, key):
    """A dot drawn at one key point is found, by its brightness, where that key point went."""
    size, out = (160, 80), (192, 96)
    cfg.INPUT.SIZE_TRAIN = list(out)
    cfg.INPUT.CROP.SIZE = list(out)
    cfg.INPUT.CROP.SCALE = [0.5, 1.0]
    if key == "reflect":
        cfg.INPUT.PADDING.ENABLED, cfg.INPUT.PADDING.MODE = True, "reflect"
    for name in ("CROP", "PADDING", "FLIP", "CJ", "AFFINE"):
        if key in (name, "all"):
            cfg.INPUT[name].ENABLED = True
    transform = build_keypoint_transforms(cfg, is_train=True)
    index, (x, y) = 5, (30, 70)
    points = spread_points(size)
    points[index] = torch.tensor([x, y])
    slots = set()
    for seed in range(12):
        torch.manual_seed(seed)
        image, keypoints = transform(dot_image(size, x, y), points, ALL_TRUSTED)
        assert image.shape[1:] == out
        scale = torch.tensor([out[1], out[0]])
        distances = ((keypoints[:, :2] - centroid(image)) * scale).norm(dim=1)
        slot = int(distances.argmin())
        assert distances[slot] < 1.0
        assert keypoints[slot, 2] == 1
        slots.add(slot)
    assert slots == ({5, 6} if key in ("FLIP", "all") else {5})


def test_flip_swaps_left_and_right():
    size = (40, 20)
    points = spread_points(size)
    trusted = torch.arange(17) % 3 > 0
    transform = KeypointTransforms([RandomFlip(prob=1.0), Follow(v2.PILToTensor())])
    image, keypoints = transform(random_image(size), points, trusted)
    expected = torch.from_numpy(np.asarray(random_image(size))[:, ::-1].copy()).permute(2, 0, 1)
    assert torch.equal(image, expected)
    for i, j in enumerate(MIRRORED):
        x, y = points[i].tolist()
        assert keypoints[j].tolist() == pytest.approx([1 - x / 20, y / 40, float(trusted[i])])


def test_flip_twice_gives_the_start():
    size = (40, 20)
    points, trusted = KeyPoints(spread_points(size), canvas_size=size), torch.arange(17) % 3 > 0
    flip = RandomFlip(prob=1.0)
    once = flip(random_image(size), points, trusted)
    twice = flip(*once)
    assert np.array_equal(np.asarray(twice[0]), np.asarray(random_image(size)))
    torch.testing.assert_close(torch.Tensor(twice[1]), torch.Tensor(points))
    assert torch.equal(twice[2], trusted)
    assert not torch.equal(once[2], trusted)
    shoulder = COCO_KEYPOINTS.index("left_shoulder")
    assert once[1][COCO_KEYPOINTS.index("right_shoulder"), 1] == points[shoulder, 1]


def test_points_outside_the_image_are_not_trusted_from_the_start():
    points = spread_points((40, 20))
    points[0], points[1], points[2] = torch.tensor([-0.5, 3]), torch.tensor([20.0, 40.0]), torch.tensor([4, 40.5])
    _, keypoints = KeypointTransforms([Follow(v2.PILToTensor())])(random_image((40, 20)), points, ALL_TRUSTED)
    assert keypoints[:, 2].tolist() == [0, 1, 0] + [1] * 14


def test_points_cut_off_lose_their_trust_for_good(cfg):
    """The centre 60 x 30 of 100 x 50 starts at x 10, y 20."""
    cfg.INPUT.SIZE_TEST = [100, 50]
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.SIZE = [60, 30]
    points = torch.full((17, 2), 45.0) - torch.tensor([20.0, 0.0])
    points[0], points[1], points[2] = torch.tensor([9.0, 50.0]), torch.tensor([11.0, 21.0]), torch.tensor([20.0, 81.0])
    transform = build_keypoint_transforms(cfg, is_train=False)
    _, keypoints = transform(random_image((100, 50)), points, ALL_TRUSTED)
    assert keypoints[:, 2].tolist() == [0, 1, 0] + [1] * 14
    assert keypoints[1].tolist() == pytest.approx([1 / 30, 1 / 60, 1])
    # Padding takes the lost points back into the frame, but their pixels are gone.
    padded = KeypointTransforms([*transform.steps, Pad(20, "constant")])
    _, keypoints = padded(random_image((100, 50)), points, ALL_TRUSTED)
    assert 0 < keypoints[0, 0] < 1
    assert keypoints[:, 2].tolist() == [0, 1, 0] + [1] * 14


def test_erased_points_lose_their_trust(cfg):
    size = (64, 32)
    cfg.INPUT.SIZE_TRAIN = list(size)
    cfg.INPUT.REA.ENABLED, cfg.INPUT.REA.PROB, cfg.INPUT.REA.VALUE = True, 1.0, [300.0, 301.0, 302.0]
    transform = build_keypoint_transforms(cfg, is_train=True)
    points = torch.floor(spread_points(size)) + 0.5
    num_erased = 0
    for seed in range(20):
        torch.manual_seed(seed)
        image, keypoints = transform(random_image(size), points, ALL_TRUSTED)
        for (x, y), trusted in zip(points.tolist(), keypoints[:, 2].tolist(), strict=True):
            erased = image[0, int(y), int(x)] == 300
            assert trusted == (not erased)
            num_erased += int(erased)
    assert 0 < num_erased < 20 * 17


def test_erasing_probability_is_kept():
    erasing = RandomErasing(0.25, [300.0] * 3)
    points = KeyPoints(spread_points((16, 8)), canvas_size=(16, 8))
    torch.manual_seed(0)
    images = [erasing(torch.zeros(3, 16, 8), points, ALL_TRUSTED)[0] for _ in range(400)]
    assert np.mean([bool((image == 300).any()) for image in images]) == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize("key", ["AUTOAUG", "AUGMIX", "RPT"])
def test_augmentations_without_key_points_are_refused_by_name(cfg, key):
    cfg.INPUT[key].ENABLED = True
    with pytest.raises(ConfigError, match=rf"INPUT\.{key}\.ENABLED is True.*MODEL.MGRE.LOCATION.LOSS_WEIGHT 0"):
        build_keypoint_transforms(cfg, is_train=True)
    build_keypoint_transforms(cfg, is_train=False)


class ShiftRight:
    """By 10 pixels; the new pixels are black."""

    def __call__(self, image, points, trusted):
        shifted = Image.new("RGB", image.size)
        shifted.paste(image, (10, 0))
        return shifted, KeyPoints(points + torch.tensor([10.0, 0.0]), canvas_size=points.canvas_size), trusted


@pytest.mark.parametrize("build", [build_keypoint_transforms, build_image_transforms])
def test_a_registered_augmentation_comes_before_random_erasing(cfg, monkeypatch, build):
    monkeypatch.setattr(AUGMENTATION_REGISTRY, "_obj_map", {"shift": lambda cfg: ShiftRight()})
    cfg.INPUT.SIZE_TRAIN = [64, 32]
    cfg.INPUT.REA.ENABLED, cfg.INPUT.REA.PROB, cfg.INPUT.REA.VALUE = True, 1.0, [255.0, 255.0, 255.0]
    image = Image.fromarray(np.asarray(random_image((64, 32))) // 2)
    points = torch.tensor([[2.0, 63.0]] * 16 + [[30.0, 63.0]])

    def pixels_of(*names):
        cfg.INPUT.AUGMENTATIONS = names
        torch.manual_seed(0)
        transform = build(cfg, is_train=True)
        return transform(image, points, ALL_TRUSTED) if build is build_keypoint_transforms else (transform(image), None)

    erased = (pixels_of()[0] == 255).all(dim=0)
    assert 0 < erased.sum() < 64 * 32 and not erased[63].any()
    shifted = torch.zeros(3, 64, 32)
    shifted[:, :, 10:] = torch.from_numpy(np.array(image)).permute(2, 0, 1)[:, :, :-10]
    pixels, keypoints = pixels_of("shift")
    torch.testing.assert_close(pixels, torch.where(erased, 255.0, shifted), rtol=0, atol=0)
    if keypoints is not None:
        torch.testing.assert_close(keypoints[0], torch.tensor([12 / 32, 63 / 64, 1.0]))
        assert keypoints[16, 2] == 0  # it has left the image


def test_evaluation_has_no_registered_augmentations(cfg, monkeypatch):
    monkeypatch.setattr(AUGMENTATION_REGISTRY, "_obj_map", {"shift": lambda cfg: ShiftRight()})
    cfg.INPUT.SIZE_TEST, cfg.INPUT.AUGMENTATIONS = [64, 32], ("shift",)
    image = random_image((64, 32))
    expected = build_transforms(cfg, is_train=False)(image)
    assert torch.equal(build_image_transforms(cfg, is_train=False)(image), expected)
    assert torch.equal(build_keypoint_transforms(cfg, is_train=False)(image, spread_points((64, 32)), ALL_TRUSTED)[0],
                       expected)  # fmt: skip
