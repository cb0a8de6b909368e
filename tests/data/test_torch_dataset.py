import pickle
import tracemalloc
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.data.common import CommDataset
from fastreid.data.transforms import build_transforms
from mgre.data.keypoints import ImageKeypoints
from mgre.data.torch_dataset import KeypointDataset, ReIDDataset
from mgre.data.transforms import build_keypoint_transforms
from mgre.errors import DataError
from mgre.reading.images import ImageError, UnreadableImageError, load_image
from PIL import Image
from torch.utils.data import DataLoader


@pytest.fixture
def items(tmp_path, write_image):
    names = ["b_c1.png", "a_c1.png", "c_c2.png"]
    paths = [
        str(write_image(tmp_path / name, mode=mode)) for name, mode in zip(names, ["RGB", "L", "RGB"], strict=True)
    ]
    return [(paths[0], "set_9", "set_0"), (paths[1], "set_4", "set_0"), (paths[2], "set_9", "set_1")]


@pytest.fixture
def keypoints(items):
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(0, 16, 17), rng.uniform(0, 32, 17), np.linspace(0, 1, 17)]).astype(np.float32)
    return {items[0][0]: ImageKeypoints(points, (32, 16))}


def keypoint_dataset(cfg, items, keypoints, min_score=0.3):
    cfg.INPUT.SIZE_TEST = [64, 32]
    transform = build_keypoint_transforms(cfg, is_train=False)
    return KeypointDataset(items, transform, keypoints=keypoints, min_score=min_score)


@pytest.mark.parametrize("relabel", [True, False])
def test_samples_are_those_of_the_toolbox(cfg, items, relabel):
    transform = build_transforms(cfg, is_train=False)
    ours, toolbox = ReIDDataset(items, transform, relabel), CommDataset(items, transform, relabel)
    assert (len(ours), ours.num_classes, ours.num_cameras) == (3, 2, 2)
    for index in range(3):
        sample, expected = ours[index], toolbox[index]
        assert torch.equal(sample.pop("images"), expected.pop("images"))
        assert sample == expected


def test_transparent_and_palette_images_become_rgb(tmp_path, write_image):
    path = write_image(tmp_path / "a.png", mode="RGBA")
    colours = Image.new("RGB", (4, 4), (200, 10, 60))
    colours.quantize(4).save(tmp_path / "b.png")
    dataset = ReIDDataset([(str(path), 0, 0), (str(tmp_path / "b.png"), 0, 0)])
    *colour, alpha = np.moveaxis(np.asarray(Image.open(path)).astype(float), 2, 0)
    on_black = np.stack(colour, axis=2) * alpha[..., None] / 255
    assert np.abs(np.asarray(dataset[0]["images"]) - on_black).max() <= 1
    assert dataset[1]["images"].getpixel((1, 1)) == (200, 10, 60)


def test_key_points_of_a_sample(cfg, items, keypoints):
    dataset = keypoint_dataset(cfg, items, keypoints)
    sample = dataset[0]
    points = keypoints[items[0][0]].points
    assert sample["keypoints"].dtype == torch.float32
    np.testing.assert_allclose(sample["keypoints"][:, :2], points[:, :2] / [16, 32], rtol=1e-6)
    # Scores are 0, 1/16, ..., 1: the first five are under 0.3.
    assert sample["keypoints"][:, 2].tolist() == [0.0] * 5 + [1.0] * 12
    assert sample["targets"] == 1
    assert torch.equal(sample["images"], ReIDDataset(items, build_transforms(cfg, is_train=False))[0]["images"])


def test_an_image_without_key_points_has_no_trusted_ones(cfg, items, keypoints):
    assert keypoint_dataset(cfg, items, keypoints)[1]["keypoints"][:, 2].sum() == 0


def test_key_points_for_another_size_are_refused(cfg, items, keypoints):
    entry = keypoints[items[0][0]]
    keypoints[items[0][0]] = ImageKeypoints(entry.points, (128, 64))
    with pytest.raises(DataError, match=r"b_c1\.png' has 16 x 32 pixels .* are for 64 x 128; find them again"):
        keypoint_dataset(cfg, items, keypoints)[0]


def test_datasets_can_be_sent_to_spawned_workers(cfg, items, keypoints):
    for dataset in (
        ReIDDataset(items, build_transforms(cfg, is_train=False)),
        keypoint_dataset(cfg, items, keypoints),
    ):
        copy = pickle.loads(pickle.dumps(dataset))
        assert torch.equal(copy[0]["images"], dataset[0]["images"])


def cut_off(path, num_bytes):
    with open(path, "r+b") as file:
        file.truncate(num_bytes)


def break_pixels(path):
    """A PNG whose header is whole and whose pixels are not a stream of pixels."""
    with open(path, "rb") as file:
        content = file.read()
    start = content.index(b"IDAT") + 4
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    data = b"x" * length
    crc = zlib.crc32(b"IDAT" + data).to_bytes(4, "big")
    with open(path, "wb") as file:
        file.write(content[:start] + data + crc + content[start + length + 4 :])


FAULTS = {
    "empty": (partial(cut_off, num_bytes=0), r"is empty \(0 bytes\)"),
    "truncated": (partial(cut_off, num_bytes=400), r"cannot be read \(.+\)"),
    "broken": (break_pixels, r"cannot be read \(.+\)"),
    "missing": (Path.unlink, "does not exist"),
}


@pytest.mark.parametrize(
    ("num_workers", "bad"),
    [
        (0, [("a.png", "empty"), ("b.png", "truncated"), ("c.png", "broken"), ("d.png", "missing")]),
        (0, [("a.jpg", "empty"), ("b.jpg", "truncated")]),
        (2, [("a.jpg", "empty"), ("b.jpg", "truncated")]),
    ],
)
def test_bad_images_are_named(cfg, tmp_path, write_image, num_workers, bad):
    for name, fault in bad:
        FAULTS[fault][0](write_image(tmp_path / name, size=(64, 32)))
    dataset = ReIDDataset([(str(tmp_path / name), 0, 0) for name, _ in bad], build_transforms(cfg, is_train=False))
    batches = iter(DataLoader(dataset, num_workers=num_workers))
    for name, fault in bad:
        words = FAULTS[fault][1]
        message = rf"^Image '{tmp_path}/{name}' {words}; .*copy it again,? or leave it out$"
        with pytest.raises(ImageError, match=message) as caught:
            next(batches)
        assert "\n" not in str(caught.value)
    assert list(batches) == []  # ends the workers at once, not when they are collected


def test_a_sample_s_memory_does_not_grow_with_the_data_set(monkeypatch):
    dataset = ReIDDataset([("a.png", 0, 0)] * 200_000, relabel=False)
    dataset.skip_unreadable = True
    monkeypatch.setattr(dataset, "load", lambda path: {})
    tracemalloc.start()
    assert dataset[100_000]["img_paths"] == "a.png"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000  # bytes; a tuple of all indices has 1.6 million


@pytest.mark.parametrize(("start", "readable", "found"), [(2, 2, 2), (2, 3, 3), (2, 0, 0), (5, 4, 4), (0, 5, 5)])
def test_the_next_image_of_the_identity_stands_in(monkeypatch, start, readable, found):
    dataset = ReIDDataset([(f"{i}.png", 0, 0) for i in range(6)], relabel=False)
    dataset.skip_unreadable = True
    asked = []

    def load(path):
        asked.append(int(path[0]))
        if asked[-1] != readable:
            raise UnreadableImageError(path)
        return {}

    monkeypatch.setattr(dataset, "load", load)
    assert dataset[start]["img_paths"] == f"{found}.png"
    order = (*range(start, 6), *range(start))
    assert asked == list(order[: order.index(found) + 1])


def test_images_are_turned_as_their_exif_data_say(tmp_path):
    pixels = np.zeros((4, 2, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(load_image(str(tmp_path / "a.png"))), np.rot90(pixels, -1))
