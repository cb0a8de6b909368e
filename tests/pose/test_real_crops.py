"""The tool and the check on real crops: 50 identities of PKU-Reid with MoveNet's key points, where they are there."""

import copy
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mgre.commands import extract_keypoints
from mgre.data.coco_file import load_keypoints
from mgre.pose import POSE_MODELS
from mgre.reading.images import load_image
from mgre_cli.extract_keypoints import parse_args
from PIL import Image

from tests.pose.damage import damages, with_points

PKU_REID = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "pku-reid-50"
SIZE = (128, 48)

pytestmark = pytest.mark.skipif(not PKU_REID.is_dir(), reason=f"needs the crops of PKU-Reid in {PKU_REID}")


@pytest.fixture
def extract(capsys):
    """Run the tool; its exit status and what it printed."""

    def call(*words):
        capsys.readouterr()
        status = extract_keypoints.call(parse_args([str(word) for word in words]))
        return status, capsys.readouterr()

    return call


# -- each kind of model, from the command to the sheets -------------------------------------------


@pytest.mark.usefixtures("quick_random_weights")  # until those of the file are loaded
@pytest.mark.parametrize("kind", ["rtmpose", "onnx", "hrnet"])
def test_each_kind_of_model_runs_end_to_end(extract, tmp_path, write_pose_onnx, hrnet_weights, kind):
    if kind == "rtmpose":
        pytest.importorskip("rtmlib")
    weights = hrnet_weights if kind == "hrnet" else write_pose_onnx(tmp_path / "pose.onnx")
    root = PKU_REID
    if kind == "hrnet":  # a second for each crop on a slow machine: five are enough
        root = tmp_path / "crops"
        for folder, num_images in {"bounding_box_train": 3, "query": 1, "bounding_box_test": 1}.items():
            (root / folder).mkdir(parents=True)
            for path in sorted((PKU_REID / folder).glob("*.jpg"))[:num_images]:
                shutil.copy(path, root / folder)
    output = tmp_path / "found.json"
    status, printed = extract(
        *("--config-file", "configs/MGRe/custom.yml", "--model", kind, "--weights", weights, "--output", output),
        *("DATASETS.CUSTOM.ROOT", root),
    )
    assert status == 0, printed.err

    names = {path.relative_to(root).as_posix() for path in root.glob("*/*.jpg")}
    found = load_keypoints(str(output))
    assert set(found) == names and len(names) == (5 if kind == "hrnet" else 800)
    assert ["images", str(len(names))] in [line.split() for line in printed.out.splitlines()]
    assert re.search(r"^left_wrist +\d+\.\d\d +\d+\.\d$", printed.out, re.MULTILINE)
    assert "image/s" in printed.err and f"{len(names)}/{len(names)}" in printed.err
    assert not os.path.exists(f"{output}.unfinished")
    # The points of some of them, found one by one.
    model = POSE_MODELS.get(kind)(weights=weights, device="cpu")
    for name in sorted(names)[:: 1 + len(names) // 4]:
        (expected,) = model([np.asarray(load_image(str(root / name)))])
        outside = ((expected[:, :2] < 0) | (expected[:, :2] > SIZE[::-1])).any(axis=1)
        expected[outside, 2] = 0
        assert found[name].size == SIZE
        np.testing.assert_allclose(found[name].points, expected, rtol=1e-4, atol=2e-3)  # in another batch
    for sheet in ("sample", "worst"):
        with Image.open(tmp_path / f"found_{sheet}.png") as image:
            columns = min(8, len(names))  # of crops of 128 x 48, shown as 288 x 108
            assert image.width == max(columns * (108 + 4) + 4, 448) and image.height > 288
        assert f"sheet       {tmp_path / f'found_{sheet}.png'}" in printed.out


# -- the check ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    return json.loads((PKU_REID / "keypoints.json").read_text())


@pytest.fixture
def check(extract, tmp_path):
    """Check a key point file, as a path in the config; the exit status and the lines that were printed."""

    def run(content):
        path = tmp_path / "keypoints.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        status, printed = extract(
            *("--config-file", "configs/MGRe/custom.yml", "--check"),
            *("DATASETS.CUSTOM.ROOT", PKU_REID, "DATASETS.KEYPOINTS", path),
        )
        assert printed.err == ""
        return status, printed.out.splitlines()

    return run


def test_the_shipped_file_is_accepted(extract):
    status, printed = extract("--config-file", "configs/MGRe/custom.yml", "--check", "DATASETS.CUSTOM.ROOT", PKU_REID)
    assert status == 0
    assert printed.out.splitlines()[-1] == f"'{PKU_REID / 'keypoints.json'}' is accepted"
    assert "error: " not in printed.out


def with_entries(change):
    """Damage the list 'images' or 'annotations' of the content in place."""

    def damage(content):
        change(content)
        return content

    return damage


def drop_train(content):
    trained = [image["id"] for image in content["images"] if image["file_name"].startswith("bounding_box_train/")]
    dropped = set(trained[:400])
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] not in dropped]


def shift_image_ids(content):
    for entry in content["annotations"]:
        entry["image_id"] = (entry["image_id"] + 1) % len(content["images"])


def lose_image(content):
    del content["images"][100]


def repeat_id(content):
    content["images"][100]["id"] = content["images"][99]["id"]


DAMAGED = damages(800, SIZE) | {
    "no list": (lambda content: content["images"], "is not COCO key point JSON: it has no list"),
    "lost image": (with_entries(lose_image), "belongs to image_id 100, which is not in 'images'"),
    "repeated id": (with_entries(repeat_id), "gives id 99 to two images"),
    "negative": (with_points(lambda points: points * [1, 1, -1]), "have a negative score"),
    "half of it": (with_entries(drop_train), "400 of 608 images .* of the training split have no key points"),
    "the next one's points": (
        with_points(lambda points: np.roll(points, 1, axis=0)),
        "points stand in other images' entries",
    ),
    "ids off by one": (with_entries(shift_image_ids), "are its image_ids off by 1"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_each_damage_has_its_own_message(check, shipped, damage):
    change, _ = DAMAGED[damage]
    status, lines = check(change(copy.deepcopy(shipped)))
    errors = [line for line in lines if line.startswith("error: ")]
    assert status == 1 and "keypoints.json' is refused" in lines[-1]
    # The first one is the cause; another one may be a consequence.
    assert [name for name, (_, known) in DAMAGED.items() if re.search(known, errors[0])] == [damage], lines
    assert len(errors) <= 2


def test_the_training_split_alone_is_accepted(check, shipped):
    kept = [image for image in shipped["images"] if image["file_name"].startswith("bounding_box_train/")]
    ids = {image["id"] for image in kept}
    entries = [entry for entry in shipped["annotations"] if entry["image_id"] in ids]
    status, lines = check({**shipped, "images": kept, "annotations": entries})
    assert status == 0
    assert any(re.match(r"warning: 192 of 192 images .* to test on have no key points", line) for line in lines)
