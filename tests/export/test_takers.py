"""The re-made preparation of other runtimes, and the runtimes themselves where they are installed.

BoxMOT and Ultralytics are licensed under the AGPL, so this package never requires or imports them. An environment that
has them runs these tests: pip install boxmot==25.0.0 ultralytics==8.4.190
"""

import importlib.util
import os
import subprocess
import sys

import mgre
import numpy as np
import pytest
from mgre.errors import ConfigError
from mgre.export.takers import TAKERS, box_of, find_taker
from mgre.inference.flavours import FLAVOURS
from mgre_cli.export import main

BOXES = np.array([[10, 20, 70, 180], [200.4, 60.6, 260.5, 230.2], [250, 100, 310, 260]], dtype=np.float32)


def frame():
    """A picture with structure at several scales: differences of resizing show."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (30, 38, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return np.clip(coarse.astype(int) + rng.integers(-30, 30, coarse.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("taker", TAKERS.values(), ids=TAKERS)
def test_a_crop_of_the_models_size_is_fed_as_it_is(taker):
    image = frame()[:64, :32]
    np.testing.assert_allclose(taker.prepare(image, (64, 32)), image.transpose(2, 0, 1), atol=1e-4)


def test_resizing_by_hand():
    """From 4 to 2 columns, bilinear without antialiasing takes the means of the two in the middle of each half."""
    image = np.zeros((2, 4, 3), dtype=np.uint8)
    image[...] = np.array([0, 100, 201, 40])[:, None]
    expected = np.array([50, 120.5])
    np.testing.assert_allclose(TAKERS["ultralytics"].prepare(image, (2, 2))[0], [expected] * 2, atol=1e-4)
    np.testing.assert_allclose(TAKERS["boxmot"].prepare(image, (2, 2))[0], [expected] * 2, atol=0.51)


def test_what_is_cut_out():
    assert box_of("boxmot", (1.4, 2.6, 30.5, 99), (50, 40)) == (1, 3, 30, 50)
    # 20 x 40 around (30, 50): 20.4 + 10 wide, 40.8 + 10 high.
    assert box_of("ultralytics", (20, 30, 40, 70), (200, 100)) == (14, 24, 45, 75)


@pytest.mark.parametrize(("name", "flavour"), [("boxmot", "unit-rgb"), ("ultralytics", "imagenet")])
def test_a_flavour_that_does_not_fit(name, flavour):
    with pytest.raises(ConfigError, match=f"'m.onnx' is exported with --input {flavour}, which {name} does not feed"):
        find_taker(name, FLAVOURS[flavour], "m.onnx")


# What runs in a process of its own: the file's path, the frame and the boxes, and where the features go.
BOXMOT = """
import sys, numpy as np
from boxmot.reid.core.runtime import ReID
given = np.load(sys.argv[2])
np.save(sys.argv[3], ReID(sys.argv[1], device="cpu")(given["frame"], given["boxes"]))
"""
ULTRALYTICS = """
import sys, numpy as np
from ultralytics.trackers.utils.reid import ReID
given = np.load(sys.argv[2])
low, high = given["boxes"][:, :2], given["boxes"][:, 2:]
features = ReID(sys.argv[1], device="cpu")(given["frame"], np.concatenate([(low + high) / 2, high - low], axis=1))
np.save(sys.argv[3], np.stack(features))
"""


def needs(name):
    """A mark, which is looked at before the fixtures, of which one exports a model."""
    reason = f"{name} is not installed, which is licensed under the AGPL: pip install {name}"
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=reason)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param("boxmot", BOXMOT, marks=needs("boxmot")),
        pytest.param("ultralytics", ULTRALYTICS, marks=needs("ultralytics")),
    ],
)
def test_the_runtime_itself_gives_pytorchs_features(exported, tmp_path, name, code):
    taker = TAKERS[name]
    path = tmp_path / "person.onnx"
    assert main([str(exported.checkpoint), "--input", taker.flavours[0], "--output", str(path)]) == 0
    picture = frame()
    np.savez(tmp_path / "given.npz", frame=picture[:, :, ::-1], boxes=BOXES)  # both take BGR
    environment = os.environ | {"YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "True", "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-c", code, path, tmp_path / "given.npz", tmp_path / "features.npy"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(tmp_path / "features.npy")

    model = mgre.load(exported.checkpoint, device="cpu")
    crops = [box_of(name, box, picture.shape[:2]) for box in BOXES.tolist()]
    pixels = [taker.prepare(picture[top:bottom, left:right], (96, 48)) for left, top, right, bottom in crops]
    expected = model.embed_pixels(np.stack(pixels))

    def unit(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    assert found.shape == expected.shape
    print(f"{name}: largest difference {np.abs(unit(found) - unit(expected)).max():.1e}")
    np.testing.assert_allclose(unit(found), unit(expected), atol=1e-3)
