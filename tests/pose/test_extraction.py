import json
import os
import re

import numpy as np
import pytest
from mgre.data.keypoints import load_keypoints
from mgre.errors import DataError, SetupError
from mgre.pose.base import PoseModel
from mgre.pose.extraction import extract_keypoints
from PIL import Image


class BrightestPixel(PoseModel):
    """Every key point is at the brightest pixel; ``stop_at`` raises as Ctrl-C does, when that batch comes."""

    def __init__(self, fingerprint="brightest", stop_at=None):
        self.fingerprint = fingerprint
        self.stop_at = stop_at
        self.batches = []

    def prepare(self, crop):
        y, x = np.unravel_index(crop.sum(axis=2).argmax(), crop.shape[:2])
        return x, y

    def predict(self, prepared):
        if len(self.batches) == self.stop_at:
            raise KeyboardInterrupt
        self.batches.append(len(prepared))
        return np.array([[(x, y, (k + 1) / 17) for k in range(17)] for x, y in prepared], dtype=np.float32)


@pytest.fixture
def crops(tmp_path):
    """Seven crops of different sizes with one white pixel each; its place by file name."""
    places = {}
    for index in range(7):
        pixels = np.zeros((20 + index, 10 + index, 3), dtype=np.uint8)
        pixels[2 * index, index] = 255
        name = f"{'query' if index % 2 else 'train'}/{index}.png"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
        places[name] = (index, 2 * index)
    return places


def extract(folder, crops, model, output="keypoints.json", **options):
    paths = [str(folder / name) for name in crops]
    options = {"batch_size": 3, "num_threads": 2} | options
    return extract_keypoints(lambda: model, paths, str(folder), str(folder / output), **options)


def test_the_points_of_every_image_are_written_as_training_reads_them(tmp_path, crops):
    model = BrightestPixel()
    found = extract(tmp_path, crops, model)
    assert model.batches == [3, 3, 1]
    assert not found.faulty
    read = load_keypoints(str(tmp_path / "keypoints.json"))
    assert set(read) == set(crops)
    for name, place in crops.items():
        assert (read[name].points[:, :2] == place).all()
        assert read[name].size == Image.open(tmp_path / name).size[::-1]
        np.testing.assert_allclose(read[name].points[:, 2], np.arange(1, 18) / 17, atol=5e-4)
    assert set(os.listdir(tmp_path)) == {"keypoints.json", "query", "train"}
    assert "brightest" in json.loads((tmp_path / "keypoints.json").read_text())["info"]["description"]


@pytest.mark.parametrize("num_done", [0, 1, 2])
@pytest.mark.parametrize("cut", [0, 1, 30])
def test_a_stopped_run_goes_on_and_ends_in_the_same_file(tmp_path, crops, num_done, cut):
    extract(tmp_path, crops, BrightestPixel(), "undisturbed.json")
    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path, crops, BrightestPixel(stop_at=num_done))
    assert not (tmp_path / "keypoints.json").exists()
    journal = tmp_path / "keypoints.json.unfinished"
    if cut and num_done:  # as if the process had been killed while it wrote
        journal.write_bytes(journal.read_bytes()[:-cut])
    model = BrightestPixel()
    extract(tmp_path, crops, model)
    assert len(model.batches) == 3 - num_done + bool(cut and num_done)
    assert (tmp_path / "keypoints.json").read_bytes() == (tmp_path / "undisturbed.json").read_bytes()
    assert not journal.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": BrightestPixel("other")}, "with another model: "),
        ({"batch_size": 2}, "with another batch_size: "),
        ({"crops": ["train/0.png"]}, "with another images: "),
    ],
)
def test_work_of_other_settings_is_neither_mixed_nor_thrown_away(tmp_path, crops, options, message):
    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path, crops, BrightestPixel(stop_at=2))
    before = (tmp_path / "keypoints.json.unfinished").read_bytes()
    options = {"crops": crops, "model": BrightestPixel()} | options
    with pytest.raises(DataError, match=message + "go on with .* or add --overwrite"):
        extract(tmp_path, **options)
    assert (tmp_path / "keypoints.json.unfinished").read_bytes() == before
    extract(tmp_path, **options, overwrite=True)
    assert set(load_keypoints(str(tmp_path / "keypoints.json"))) == set(options["crops"])


def test_an_existing_file_is_replaced_only_when_told(tmp_path, crops):
    (tmp_path / "keypoints.json").write_text("mine")
    model = BrightestPixel()
    with pytest.raises(DataError, match="is there already: add --overwrite"):
        extract(tmp_path, crops, model)
    assert (tmp_path / "keypoints.json").read_text() == "mine" and not model.batches
    extract(tmp_path, crops, model, overwrite=True)
    assert len(load_keypoints(str(tmp_path / "keypoints.json"))) == 7


def test_images_that_show_nobody_are_named_and_skipped(tmp_path, crops, write_image):
    bad = {
        "train/empty.png": (b"", r"empty \(0 bytes\)"),
        "train/cut.jpg": (write_image(tmp_path / "whole.jpg", (64, 32)).read_bytes()[:700], "cannot be read"),
        "train/text.png": (b"hello", "cannot be read"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (1, 1)).save(tmp_path / "train/pixel.png")
    bad["train/pixel.png"] = b"", "has 1 x 1 pixels"
    model = BrightestPixel()
    found = extract(tmp_path, [*crops, *bad], model)
    assert sum(model.batches) == 7
    assert set(found.keypoints) == set(load_keypoints(str(tmp_path / "keypoints.json"))) == set(crops)
    assert set(found.faulty) == set(bad)
    for name, (_, reason) in bad.items():
        assert name in found.faulty[name] and re.search(reason, found.faulty[name])


def test_points_beside_the_crop_are_not_trusted(tmp_path, crops):
    class Beside(BrightestPixel):
        def predict(self, prepared):
            points = np.ones((len(prepared), 17, 3), dtype=np.float32)
            points[:, 3, 0] = -0.5
            points[:, 4, 1] = 1000
            return points

    found = extract(tmp_path, crops, Beside())
    for keypoints in found.keypoints.values():
        assert np.flatnonzero(keypoints.points[:, 2] == 0).tolist() == [3, 4]
    assert load_keypoints(str(tmp_path / "keypoints.json"))  # far outside and trusted, it would be refused


def test_a_batch_of_bad_images_alone(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    found = extract(tmp_path, ["a.png"], BrightestPixel())
    assert list(found.faulty) == ["a.png"] and not load_keypoints(str(tmp_path / "keypoints.json"))


def test_an_output_that_cannot_be_written(tmp_path, crops):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be written"):
        extract(tmp_path, crops, BrightestPixel(), "file/keypoints.json")
