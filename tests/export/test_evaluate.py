"""``mgre evaluate`` of an exported file, on a few drawn people."""

import re

import mgre
import numpy as np
import pytest
from mgre_cli.evaluate import main

SMALL = {"NUM_TRAIN_IDS": "1", "NUM_TEST_IDS": "4", "NUM_CAMERAS": "2", "IMAGES_PER_CAMERA": "2", "SIZE": "(64, 32)"}
OPTIONS = ["--dataset", "SyntheticPedestrians"]
OPTIONS += [word for name, value in SMALL.items() for word in (f"DATASETS.SYNTHETIC.{name}", value)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    return tmp_path


def rank_1(model, folder):
    """In %: the nearest image of the other camera is of the same person."""
    paths = {split: sorted(folder.glob(f"*/{split}/*.jpg")) for split in ("query", "bounding_box_test")}
    query, gallery = (model.embed(found) for found in paths.values())
    query, gallery = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (query, gallery))
    hits = []
    for row, path in zip(query @ gallery.T, paths["query"], strict=True):
        person, camera = re.match(r"(\d+)_c(\d)", path.name).groups()
        others = [i for i, other in enumerate(paths["bounding_box_test"]) if f"{person}_c{camera}" not in other.name]
        best = paths["bounding_box_test"][max(others, key=lambda i, row=row: row[i])]
        hits.append(best.name.startswith(person))
    return 100 * np.mean(hits)


def test_figures(exported, folder, capsys):
    assert main([str(exported.onnx), *OPTIONS]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[:3] == ["mgre", "Pillow,", "bicubic"]
    assert float(row[-1]) == pytest.approx(rank_1(mgre.load(exported.onnx), folder), abs=0.01)
    assert main([str(exported.onnx), "--as", "ultralytics", *OPTIONS]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[0] == "ultralytics" and 0 < float(row[-2]) <= 100


def test_a_runtime_that_feeds_other_values(exported, capsys):
    assert main([str(exported.onnx), "--as", "boxmot", *OPTIONS]) == 1
    error = capsys.readouterr().err
    assert "is exported with --input unit-rgb, which boxmot does not feed: export it with --input imagenet" in error


def test_a_checkpoint_has_no_runtime(exported, capsys):
    assert main([str(exported.checkpoint), "--as", "boxmot", *OPTIONS]) == 1
    assert "--as boxmot is for exported files" in capsys.readouterr().err
