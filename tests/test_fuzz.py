"""Damaged and hostile files: each ends in a clear error or loads, in-process, and nothing is written or run."""

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fastreid.engine import default_argument_parser
from mgre.config import load_config
from mgre.data.coco_file import load_keypoints
from mgre.data.csv_list import read_csv
from mgre.engine.checkpointing import TrainingCheckpointer
from mgre.engine.run import setup
from mgre.errors import ConfigError, DataError, MGReError, WeightsError, printable
from mgre.reading.images import load_image
from mgre.regions import load_region_set
from mgre.system.weight_files import read_state_dict
from PIL import Image
from torch import nn

BASE = Path("configs/MGRe/Base-MGRe.yml").resolve()
ODD_VALUES = (None, True, -1, 0, 1e308, float("nan"), "", "\x00", "../../x", [], {}, [[]], {"a": 1}, "9" * 400, 2**70)


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """Cut, changed, doubled, replaced or blended, at random places."""
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    match rng.randrange(6):
        case 0:
            return content[:start]
        case 1:
            changed = bytearray(content)
            for _ in range(rng.randint(1, 8)):
                changed[rng.randrange(len(content))] = rng.randrange(256)
            return bytes(changed)
        case 2:
            return content[:end] + content[start:]
        case 3:
            return content[:start] + rng.randbytes(end - start) + content[end:]
        case 4:
            return content[:start] + bytes(end - start) + content[end:]
        case _:
            return content[:start] + content[end:]


def damaged_tree(tree: Any, rng: random.Random) -> Any:
    """The same nesting of dicts and lists with an odd value or none at a random place."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    parent, key = rng.choice(places)
    if rng.random() < 0.3:
        del parent[key]
    else:
        parent[key] = rng.choice(ODD_VALUES)
    return tree


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list) and node[key]:
            yield from _places(node[key])


@pytest.fixture
def fuzz(tmp_path, monkeypatch):
    """Write damaged content to one file again and again and load it; how many loaded, and how many were refused."""

    def call(name: str, contents: Iterator[bytes], load: Callable[[Path], Any]) -> tuple[int, int]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path)
        loaded = refused = 0
        for content in contents:
            path.write_bytes(content)
            before = sorted(tmp_path.rglob("*"))
            try:
                load(path)
                loaded += 1
            except MGReError as error:
                assert str(error) and len(printable(str(error)).splitlines()) == 1
                refused += 1
            assert sorted(tmp_path.rglob("*")) == before
        return loaded, refused

    return call


def key_points() -> dict:
    rng = np.random.default_rng(0)
    points = [np.column_stack([rng.uniform(1, (15, 31), (17, 2)), np.ones(17)]) for _ in range(3)]
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 32, "width": 16} for i in range(3)]
    annotations = [
        {"id": i, "image_id": i, "score": 0.5, "keypoints": p.ravel().tolist()} for i, p in enumerate(points)
    ]
    return {"images": images, "annotations": annotations}


def test_key_point_files(fuzz):
    rng, tree = random.Random(0), key_points()
    trees = (json.dumps(damaged_tree(tree, rng)).encode() for _ in range(120))
    raw = (damaged_bytes(json.dumps(tree).encode(), rng) for _ in range(60))
    loaded, refused = fuzz("keypoints.json", (content for part in (trees, raw) for content in part), load_keypoints)
    assert loaded + refused == 180 and refused > 60
    assert fuzz("keypoints.json", iter([b"[" * 10**5, b'{"images": ' * 10**4]), load_keypoints) == (0, 2)


def test_region_files(fuzz):
    rng = random.Random(3)
    tree = yaml.safe_load(
        "- {name: feet, stage: 2, center: [0.5, 0.9], size: [1, 0.2], keypoints: [left_ankle, right_ankle]}\n"
        "- {name: all, stage: 3, center: [0.5, 0.5], size: [1.0, 1.0]}\n"
    )
    trees = (yaml.safe_dump(damaged_tree(tree, rng)).encode() for _ in range(120))
    raw = (damaged_bytes(yaml.safe_dump(tree).encode(), rng) for _ in range(60))
    loaded, refused = fuzz(
        "regions.yml", (content for part in (trees, raw) for content in part), lambda path: load_region_set(str(path))
    )
    assert loaded + refused == 180 and 0 < loaded < 90


def test_configs(fuzz, tmp_path, take_down_logs):
    rng = random.Random(1)
    tree = load_config(str(BASE), ["MODEL.DEVICE", "cpu"])
    tree = yaml.safe_load(tree.dump())
    trees = (yaml.safe_dump(damaged_tree(tree, rng)).encode() for _ in range(90))
    text = BASE.read_bytes().replace(b"MODEL:", b"MODEL:\n  DEVICE: cpu", 1)
    raw = (damaged_bytes(text, rng) for _ in range(60))

    out = tmp_path / "out"

    def begin(path: Path) -> None:
        """As far as a run goes before it reads data."""
        load_config(str(path))
        take_down_logs()
        try:
            setup(default_argument_parser().parse_args(["--config-file", str(path), "OUTPUT_DIR", str(out)]))
        finally:
            shutil.rmtree(out, ignore_errors=True)

    loaded, refused = fuzz("config.yml", (content for part in (trees, raw) for content in part), begin)
    assert loaded + refused == 150 and refused > 50 and loaded > 30


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("SEED", (2**70, 2**32, -2, "x", None, [])),
        ("OUTPUT_DIR", ("\x00", "x" * 5000, "config.yml/out", None, [])),
    ],
)
def test_values_that_only_the_set_up_uses(fuzz, take_down_logs, key, values):
    contents = (yaml.safe_dump({"MODEL": {"DEVICE": "cpu"}, key: value}).encode() for value in values)

    def begin(path: Path) -> None:
        take_down_logs()
        setup(default_argument_parser().parse_args(["--config-file", str(path)]))

    assert fuzz("config.yml", contents, begin) == (0, len(values))


@pytest.mark.parametrize(
    "content",
    [
        "MODEL: !!python/object/apply:os.system ['touch written']",
        "!!python/object/new:os.system ['touch written']",
        "_BASE_: hostile.yml\nSEED: 1",
        "_BASE_: !!python/object/apply:os.system ['touch written']",
        "_BASE_: [1, 2]",
        "SEED: " + "[" * 5000,
        "x0: &x0 [a, a]\n" + "".join(f"x{i + 1}: &x{i + 1} [*x{i}, *x{i}]\n" for i in range(40)) + "SEED: *x40",
        "x0: &x0 {a: 1}\n" + "".join(f"x{i + 1}: &x{i + 1} {{a: *x{i}, b: *x{i}}}\n" for i in range(40)),
        "SEED: __import__('os').system('touch written')",
    ],
)
def test_hostile_configs(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path("hostile.yml").write_text(content)
    with pytest.raises(ConfigError, match=r"hostile\.yml"):
        load_config("hostile.yml", ["MODEL.DEVICE", "cpu"])
    assert os.listdir() == ["hostile.yml"]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images(fuzz, tmp_path, suffix):
    rng = random.Random(2)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    loaded, refused = fuzz(
        path.name, (damaged_bytes(content, rng) for _ in range(60)), lambda path: load_image(str(path)).resize((16, 32))
    )
    assert loaded + refused == 60 and refused > 10


CSV = "path,identity,camera,split\n" + "".join(
    f"{split}{i}.jpg,{i},{camera},{split}\n"
    for split in ("train", "query", "gallery")
    for i in (1, 2)
    for camera in (1,)
)


def test_csv_files(fuzz, tmp_path):
    rng = random.Random(3)
    for line in CSV.splitlines()[1:]:
        (tmp_path / line.split(",")[0]).touch()
    raw = (damaged_bytes(CSV.encode(), rng) for _ in range(80))
    loaded, refused = fuzz("images.csv", raw, lambda path: read_csv(str(path.parent), path.name))
    assert loaded + refused == 80 and refused > 30


@pytest.mark.parametrize("path", ["../outside.jpg", "/etc/hostname", "a/../../outside.jpg", "x\x00y.jpg"])
def test_csv_paths_stay_in_the_folder(tmp_path, path):
    (tmp_path / "outside.jpg").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "images.csv").write_text(f"path,identity,camera,split\n{path},1,1,train\n")
    with pytest.raises(DataError, match=r"images\.csv"):
        read_csv(str(tmp_path / "set"), "images.csv")


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def save_checkpoint(folder: Path, name: str = "model_0000") -> Path:
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters())
    TrainingCheckpointer(model, str(folder), optimizer=optimizer).save(name, epoch=0, metric=0.5)
    return folder / f"{name}.pth"


def test_checkpoints(fuzz, tmp_path):
    rng = random.Random(4)
    content = save_checkpoint(tmp_path).read_bytes()
    expected = small_model().state_dict()

    def resume(path: Path) -> None:
        model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        TrainingCheckpointer(model, str(tmp_path), optimizer=torch.optim.Adam(model.parameters())).resume_or_load("")
        for name, value in model.state_dict().items():  # no changed weights go in unseen
            assert torch.equal(value, expected[name])

    loaded, refused = fuzz("model_0000.pth", (damaged_bytes(content, rng) for _ in range(100)), resume)
    assert loaded + refused == 100 and refused > 80


@pytest.mark.parametrize("key", ["epoch", "iteration", "optimizer", "model"])
@pytest.mark.parametrize("value", ["x", None, [], {"a": 1}])
def test_checkpoints_with_odd_content(tmp_path, key, value):
    path = save_checkpoint(tmp_path)
    torch.save(torch.load(path, weights_only=True) | {key: value}, path)
    model = small_model()
    checkpointer = TrainingCheckpointer(model, str(tmp_path), optimizer=torch.optim.Adam(model.parameters()))
    with pytest.raises(WeightsError, match=r"model_0000\.pth"):
        checkpointer.resume_or_load("")


class Hostile:
    def __reduce__(self):
        return os.system, ("touch written",)


def test_hostile_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for legacy in (False, True):
        torch.save({"model": Hostile()}, "model.pth", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(WeightsError, match="could run code"):
            read_state_dict("model.pth")
    assert os.listdir() == ["model.pth"]


def test_the_note_of_the_last_checkpoint_stays_in_the_folder(tmp_path):
    save_checkpoint(tmp_path, "model_elsewhere")
    (tmp_path / "out").mkdir()
    expected = save_checkpoint(tmp_path / "out")
    for note in (b"../model_elsewhere.pth", b"", b"\xff\x00", b"nothing.pth"):
        (tmp_path / "out" / "last_checkpoint").write_bytes(note)
        assert TrainingCheckpointer(small_model(), str(tmp_path / "out")).checkpoint_files() == [expected]


def test_file_names_in_messages_are_escaped():
    assert printable("a\x1b[2Jb\nc\u202ed é.jpg") == "a\\x1b[2Jb\\nc\\u202ed é.jpg"
