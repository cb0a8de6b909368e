"""tools/extract_keypoints.py as a user calls it."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mgre.data.keypoints import load_keypoints
from mgre.engine import main
from PIL import Image

TOOL = "tools/extract_keypoints.py"


@pytest.fixture
def extract(capsys):
    """Run the tool in this process, which has imported what it needs; what it printed."""
    spec = importlib.util.spec_from_file_location("extract_keypoints", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def call(*words: str | Path, status: int = 0):
        capsys.readouterr()
        found = main(lambda: tool.run(tool.parse_args([str(word) for word in words])))
        printed = capsys.readouterr()
        assert found == status, printed.out[-3000:] + printed.err[-3000:]
        return printed

    return call


@pytest.fixture
def crops(tmp_path, draw_dot) -> Path:
    """A folder of 60 crops."""
    folder = tmp_path / "crops"
    folder.mkdir()
    for index in range(60):
        dot = draw_dot((64, 32), (10 + index % 10, 20 + index % 20))
        Image.fromarray(dot).save(folder / f"{index:04d}.png")
    return folder


def test_a_folder_of_crops(extract, tmp_path, crops, write_pose_onnx):
    weights = write_pose_onnx(tmp_path / "pose.onnx")
    (crops / "bad.jpg").write_bytes(b"")
    done = extract("--images", crops, "--model", "onnx", "--weights", weights, status=3)
    assert "60/61" in done.err or "61/61" in done.err  # the bar, with its rate
    assert "image/s" in done.err
    assert "bad.jpg' is empty (0 bytes)" in done.err
    assert "left_ankle" in done.out and "images with no trusted point" in done.out
    assert len(load_keypoints(str(crops / "keypoints.json"))) == 60
    for kind in ("sample", "worst"):
        assert Image.open(crops / f"keypoints_{kind}.png").width > 200
    # A second time it would be lost.
    before = (crops / "keypoints.json").read_bytes()
    again = extract("--images", crops, "--model", "onnx", "--weights", weights, status=1)
    assert "is there already: add --overwrite" in again.err
    assert (crops / "keypoints.json").read_bytes() == before
    # The sheets are not taken for crops.
    extract("--images", crops, "--model", "onnx", "--weights", weights, "--overwrite", status=3)
    assert (crops / "keypoints.json").read_bytes() == before


def test_killed_and_started_again(extract, tmp_path, crops, write_pose_onnx):
    options = ["--images", crops, "--model", "onnx", "--weights", write_pose_onnx(tmp_path / "pose.onnx")]
    options += ["--batch-size", "1"]
    extract(*options, "--output", tmp_path / "undisturbed.json")
    journal = tmp_path / "killed.json.unfinished"
    command = [sys.executable, TOOL, *map(str, options), "--output", str(tmp_path / "killed.json")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not journal.exists() or journal.read_bytes().count(b"\n") < 6:
            time.sleep(0.001)
            assert process.poll() is None
        process.kill()
    assert not (tmp_path / "killed.json").exists()
    done = extract(*options, "--output", tmp_path / "killed.json")
    assert " 0/60" not in done.err  # what was done stays done
    assert (tmp_path / "killed.json").read_bytes() == (tmp_path / "undisturbed.json").read_bytes()
    assert not journal.exists()


def test_a_config_of_training_then_a_check(extract, tmp_path, small_run, write_pose_onnx):
    (tmp_path / "own" / "keypoints.json").unlink()
    config = ["--config-file", "configs/MGRe/custom.yml"]
    own = ["DATASETS.CUSTOM.ROOT", str(tmp_path / "own")]
    extract(*config, "--model", "onnx", "--weights", write_pose_onnx(tmp_path / "pose.onnx"), *own)
    content = load_keypoints(str(tmp_path / "own" / "keypoints.json"), min_score=9)
    expected = {path.relative_to(tmp_path / "own").as_posix() for path in (tmp_path / "own").glob("*/*.jpg")}
    assert set(content) == expected and any(name.startswith("query/") for name in expected)

    assert "is accepted" in extract(*config, "--check", *own).out
    (tmp_path / "own" / "keypoints.json").write_text('{"images": [], "annotations": []}')
    refused = extract(*config, "--check", *own, status=1).out
    assert f"error: {len(expected)} of {len(expected)} images" in refused and "is refused" in refused


def test_key_points_one_has(extract, tmp_path, small_run):
    own = tmp_path / "own"
    (own / "keypoints.json").rename(tmp_path / "theirs.json")
    arguments = ["--images", own, "--import", "coco", tmp_path / "theirs.json"]
    done = extract(*arguments)
    theirs, ours = (load_keypoints(str(path)) for path in (tmp_path / "theirs.json", own / "keypoints.json"))
    assert set(ours) == set(theirs)
    assert all(np.allclose(ours[name].points, theirs[name].points, atol=6e-4) for name in ours)
    assert f"{len(ours)} of {len(ours)} images have key points" in done.out
    assert "is there already" in extract(*arguments, status=1).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "nowhere"], "'nowhere' has no images"),
        (["--images", "{crops}", "--model", "onnx"], "give an .onnx file with --weights"),
        (["--images", "{crops}", "--model", "hrnet", "--weights", "none.pth"], "'none.pth' does not exist"),
        (["--images", "{crops}", "--import", "openpose", "x"], "known ones: boxmot, coco, kpr"),
        (["--images", "{crops}", "--check"], "keypoints.json' does not exist"),
        (["--images", "{crops}", "MODEL.MGRE.STAGE", "1"], "nearest: MODEL.MGRE.STAGES"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(extract, tmp_path, crops, arguments, message):
    arguments = [str(crops) if word == "{crops}" else word for word in arguments]
    done = extract(*arguments, status=1)
    assert message in done.out + done.err
    assert "Traceback" not in done.err
    assert not (crops / "keypoints.json").exists()


def test_the_command_line():
    usage = subprocess.run([sys.executable, TOOL, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("rtmpose", "hrnet", "onnx", "coco", "boxmot", "kpr"):
        assert name in usage
