import random

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode
from fastreid.data.build import fast_batch_collator
from fastreid.data.transforms import build_transforms
from mgre.data.batches import Collate, PackedBatch
from mgre.data.occlusion import Occlusion
from mgre.data.transforms import PIXEL_ONLY_KEYS, build_keypoint_transforms
from PIL import Image
from torch.utils.data import DataLoader

COLOUR = [123.675, 116.28, 103.53]
AUGMENTATIONS = ("CROP", "PADDING", "FLIP", "CJ", "AFFINE", "REA", *PIXEL_ONLY_KEYS)


def photo(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)).resize((33, 70), Image.Resampling.BICUBIC)


def configure(cfg: CfgNode, names: tuple[str, ...]) -> None:
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = cfg.INPUT.CROP.SIZE = [64, 32]
    for name in AUGMENTATIONS:
        cfg.INPUT[name].ENABLED = name in names
        if "PROB" in cfg.INPUT[name]:
            cfg.INPUT[name].PROB = 0.5


def samples_of(cfg: CfgNode, *, with_keypoints: bool, is_train: bool = True, number: int = 8) -> list[dict]:
    """Augmented from fixed random states; the last ones of many, because random patches need some images before."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    plain, moving = build_transforms(cfg, is_train), None
    if with_keypoints:
        moving = build_keypoint_transforms(cfg, is_train=is_train)
    samples = []
    for i in range(112 if "RPT" in cfg.INPUT and cfg.INPUT.RPT.ENABLED else number):
        if moving is None:
            sample = {"images": plain(photo(i))}
        else:
            image, keypoints = moving(photo(i), torch.rand(17, 2) * 30, torch.ones(17, dtype=torch.bool))
            sample = {"images": image, "keypoints": keypoints}
        samples.append(sample | {"targets": i % 3, "camids": i, "img_paths": f"{i}.jpg"})
    return samples[-number:]


def check_that_nothing_is_lost(batch: PackedBatch, samples: list[dict]) -> None:
    """Against the collate function that is replaced."""
    expected, arrived = fast_batch_collator(samples), batch.unpack()
    assert set(arrived) == set(expected)
    assert arrived["img_paths"] == expected["img_paths"]
    for name in expected.keys() - {"img_paths"}:
        assert arrived[name].dtype == expected[name].dtype
        assert torch.equal(arrived[name], expected[name])


@pytest.mark.parametrize("with_keypoints", [False, True])
@pytest.mark.parametrize("names", [(), *((name,) for name in AUGMENTATIONS), AUGMENTATIONS], ids="+".join)
def test_every_augmentation_s_pixels_travel_as_bytes(cfg, names, with_keypoints):
    if with_keypoints:
        names = tuple(name for name in names if name not in PIXEL_ONLY_KEYS)
    configure(cfg, names)
    samples = samples_of(cfg, with_keypoints=with_keypoints)
    batch = Collate(cfg.INPUT.REA.VALUE)(samples)
    assert batch["images"].dtype == torch.uint8
    assert ("erased" in batch) == ("REA" in names)
    check_that_nothing_is_lost(batch, samples)
    images = [sample["images"] for sample in samples]
    assert any(not torch.equal(image, images[0]) for image in images)
    floats = sum(image.nbytes for image in images)
    if "REA" in names:
        assert any(not torch.equal(image, image.round()) for image in images)
        assert batch["images"].nbytes + batch["erased"].nbytes == floats / 3
    else:
        assert all(torch.equal(image, image.round()) for image in images)
        assert batch["images"].nbytes == floats / 4


@pytest.mark.parametrize("colour", [COLOUR, [124.0, 0.0, 255.0], [0.25]])
def test_erased_pixels_keep_their_colour(cfg, colour):
    configure(cfg, ("REA",))
    cfg.INPUT.REA.PROB = 1.0
    cfg.INPUT.REA.VALUE = colour
    samples = samples_of(cfg, with_keypoints=len(colour) == 3)
    batch = Collate(colour)(samples)
    assert batch["images"].dtype == torch.uint8
    assert ("erased" in batch) == (colour != [124.0, 0.0, 255.0])
    check_that_nothing_is_lost(batch, samples)


def test_occluded_test_images(cfg):
    configure(cfg, ())
    occlusion = Occlusion(folder="", prob=0.7, seed=1, value=COLOUR)
    samples = [
        sample | occlusion(sample["img_paths"], {"images": sample["images"]})
        for sample in samples_of(cfg, with_keypoints=False, is_train=False)
    ]
    batch = Collate(COLOUR)(samples)
    assert 0 < batch["erased"].any(dim=(1, 2)).sum() < 8
    check_that_nothing_is_lost(batch, samples)


@pytest.mark.parametrize(
    "image",
    [
        torch.full((3, 4, 2), 0.5),
        torch.full((3, 4, 2), 256.0),
        torch.full((3, 4, 2), -1.0),
        torch.full((3, 4, 2), torch.nan),
        torch.full((3, 4, 2), torch.inf),
        torch.full((3, 4, 2), 7.0, dtype=torch.float64),
        torch.full((3, 4, 2), 7, dtype=torch.int64),
        torch.full((1, 4, 2), 7.5),
    ],
    ids=str,
)
def test_what_bytes_cannot_say_stays_as_it_is(image):
    collate = Collate(COLOUR)
    images = [torch.zeros_like(image), image, torch.zeros_like(image)]
    batch = collate([{"images": image, "targets": 1} for image in images])
    assert not isinstance(batch, PackedBatch)
    assert batch["images"].dtype == image.dtype
    torch.testing.assert_close(batch["images"], torch.stack(images), rtol=0, atol=0, equal_nan=True)
    assert batch["targets"].tolist() == [1, 1, 1]


def test_one_pixel_of_another_value_keeps_the_batch_in_float32():
    image = torch.zeros(3, 4, 2)
    image[:, 1, 1] = torch.tensor(COLOUR)  # as if erased
    assert Collate(COLOUR)([{"images": image}])["images"].dtype == torch.uint8
    image[1, 2, 0] = 0.5
    assert torch.equal(Collate(COLOUR)([{"images": image}])["images"], image[None])


def test_samples_that_cannot_be_read_are_left_out():
    samples = [None, {"images": torch.ones(3, 4, 2), "targets": 5}, None]
    batch = Collate(COLOUR)(samples)
    assert batch["targets"].tolist() == [5]
    assert batch["images"].shape == (1, 3, 4, 2)
    assert Collate(COLOUR)([None, None]) == {}


class SeesItsMemory(Collate):
    def __call__(self, samples):
        batch = super().__call__(samples)
        shared = all(batch[name].is_shared() for name in ("images", "erased", "keypoints"))
        return batch | {"shared": torch.tensor(shared)}


def test_workers_write_into_shared_memory(cfg):
    configure(cfg, ("REA",))
    cfg.INPUT.REA.PROB = 1.0
    samples = samples_of(cfg, with_keypoints=True)
    (alone,) = DataLoader(samples, 8, collate_fn=SeesItsMemory(COLOUR))
    (of_worker,) = DataLoader(samples, 8, collate_fn=SeesItsMemory(COLOUR), num_workers=1)
    assert not alone["shared"] and of_worker["shared"]
    for name in ("images", "erased", "keypoints", "erased_colour"):
        assert torch.equal(alone[name], of_worker[name])
