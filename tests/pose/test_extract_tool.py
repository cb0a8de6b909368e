"""tools/extract_keypoints.py as a user calls it."""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.engine import default_argument_parser
from mgre.commands import extract_keypoints
from mgre.commands.main import main
from mgre.data.coco_file import load_keypoints
from mgre.engine.run import run
from mgre.errors import SetupError
from mgre.pose import hrnet
from mgre_cli.extract_keypoints import parse_args
from PIL import Image

TOOL = "tools/extract_keypoints.py"


@pytest.fixture
def tool():
    return extract_keypoints


@pytest.fixture
def extract(tool, capsys):
    """Run the tool in this process, which has imported what it needs; what it printed."""

    def call(*words: str | Path, status: int = 0):
        capsys.readouterr()
        found = tool.call(parse_args([str(word) for word in words]))
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
    assert "is there already: add --overwrite to replace it or --sheets to draw its sheets" in again.err
    assert (crops / "keypoints.json").read_bytes() == before
    # The sheets are not taken for crops.
    extract("--images", crops, "--model", "onnx", "--weights", weights, "--overwrite", status=3)
    assert (crops / "keypoints.json").read_bytes() == before


def silent_call(words: list[str]) -> None:
    """The tool in a process of its own, which the process of the tests does not print."""
    # The fork server has the environment of the test that has started it.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    sys.exit(extract_keypoints.call(parse_args(words)))


@pytest.mark.slow
@pytest.mark.usefixtures("quick_random_weights")  # until those of the file are loaded
@pytest.mark.parametrize("kind", ["onnx", "hrnet"])
def test_killed_and_started_again(extract, tmp_path, crops, write_pose_onnx, hrnet_weights, kind):
    num_images = {"onnx": 60, "hrnet": 4}[kind]
    for path in sorted(crops.iterdir())[num_images:]:
        path.unlink()
    weights = {"onnx": write_pose_onnx(tmp_path / "pose.onnx"), "hrnet": hrnet_weights}[kind]
    options = ["--images", crops, "--model", kind, "--weights", weights, "--batch-size", "1"]
    journal = tmp_path / "killed.json.unfinished"
    words = [*map(str, options), "--output", str(tmp_path / "killed.json")]
    process = multiprocessing.get_context("forkserver").Process(target=silent_call, args=(words,))
    process.start()
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        time.sleep(0.001)
        assert process.exitcode is None
    process.kill()
    process.join()
    assert not (tmp_path / "killed.json").exists()
    done = extract(*options, "--output", tmp_path / "killed.json")
    assert f" 0/{num_images}" not in done.err  # what was done stays done
    extract(*options, "--output", tmp_path / "undisturbed.json")
    assert (tmp_path / "killed.json").read_bytes() == (tmp_path / "undisturbed.json").read_bytes()
    assert not journal.exists()


@pytest.mark.parametrize(
    ("step", "words", "goes_on"),
    [
        ("extract_keypoints", [], True),
        ("write_keypoints", ["--import", "coco", "{file}"], False),
        ("check_keypoints", ["--check", "--output", "{file}"], False),
        ("save_sheets", ["--sheets", "--output", "{file}"], False),
    ],
)
def test_stopped_by_ctrl_c(extract, tool, tmp_path, small_run, write_pose_onnx, monkeypatch, step, words, goes_on):
    theirs = str((tmp_path / "own" / "keypoints.json").rename(tmp_path / "theirs.json"))
    monkeypatch.setattr(tool, step, lambda *_, **__: signal.raise_signal(signal.SIGINT))
    arguments = ["--images", tmp_path / "own", "--model", "onnx", "--weights", write_pose_onnx(tmp_path / "pose.onnx")]
    done = extract(*arguments, *(word.format(file=theirs) for word in words), status=130)
    assert done.err.splitlines()[-1] == "stopped" + "; the same command goes on from here" * goes_on


@pytest.fixture
def two_sets(tmp_path, monkeypatch, make_market_folder, write_pose_onnx):
    """Arguments for a config of two data sets, Market1501 and a custom one, and the two folders."""
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    folders = [make_market_folder(tmp_path / name) for name in ("Market-1501-v15.09.15", "own")]
    arguments = ["--config-file", "configs/MGRe/custom.yml", "--model", "onnx", "--weights"]
    arguments.append(write_pose_onnx(tmp_path / "pose.onnx"))
    both = "('Market1501', 'CustomReID')"
    overrides = ["DATASETS.NAMES", both, "DATASETS.TESTS", both]
    return arguments, [*overrides, "DATASETS.CUSTOM.ROOT", str(folders[1])], folders


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_of_two_sets_the_one_that_was_stopped_is_finished(extract, tool, two_sets, monkeypatch, flags):
    arguments, overrides, folders = two_sets
    if flags:
        for folder in folders:
            (folder / "keypoints.json").write_text("old")
    find = tool.extract_keypoints

    def stopped(model, image_set, *args, **options):
        if image_set.folder == str(folders[1]):
            raise SetupError("stopped")
        return find(model, image_set, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(tool, "extract_keypoints", stopped)
        extract(*arguments, *flags, *overrides, status=1)
    first = folders[0] / "keypoints.json"
    before = first.stat()
    assert (folders[1] / "keypoints.json").exists() == bool(flags)
    done = extract(*arguments, *flags, *overrides)
    assert f"'{first}' is there already: left as it is" in done.out
    assert first.stat().st_mtime_ns == before.st_mtime_ns
    assert [len(load_keypoints(str(folder / "keypoints.json"))) for folder in folders] == [12, 12]
    refused = extract(*arguments, *overrides, status=1)
    assert f"error: '{first}' is there already: add --overwrite" in refused.err


def test_of_two_sets_the_one_without_a_file_is_imported(extract, two_sets, tmp_path):
    arguments, overrides, folders = two_sets
    extract(*arguments[:2], "--model", "onnx", *arguments[4:], *overrides)
    (folders[1] / "keypoints.json").rename(tmp_path / "theirs.json")
    done = extract(*arguments[:2], "--import", "coco", tmp_path / "theirs.json", *overrides)
    assert f"'{folders[0] / 'keypoints.json'}' is there already: left as it is" in done.out
    assert len(load_keypoints(str(folders[1] / "keypoints.json"))) == 12


def test_two_sets_never_share_a_file(extract, two_sets, tmp_path, monkeypatch):
    arguments, overrides, folders = two_sets
    shared = tmp_path / "shared.json"
    refused = extract(*arguments, *overrides, "DATASETS.KEYPOINTS", shared, status=1).err
    assert f"'{folders[0]}' and of '{folders[1]}': give a name" in refused
    assert not shared.exists()
    # A file relative to the working directory, which training takes for both.
    config = os.path.abspath("configs/MGRe/custom.yml")
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "k.json").write_text("mine")
    monkeypatch.chdir(tmp_path / "cwd")
    words = ["--config-file", config, *arguments[2:], "--overwrite", *overrides, "DATASETS.KEYPOINTS", "k.json"]
    assert "give a name" in extract(*words, status=1).err
    assert (tmp_path / "cwd" / "k.json").read_text() == "mine"


def test_the_file_is_where_training_looks(extract, tmp_path, small_run, write_pose_onnx, monkeypatch):
    (tmp_path / "own" / "keypoints.json").unlink()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    own = ["DATASETS.CUSTOM.ROOT", str(tmp_path / "own"), "DATASETS.KEYPOINTS"]
    arguments = ["--config-file", os.path.abspath("configs/MGRe/custom.yml"), "--model", "onnx"]
    arguments += ["--weights", write_pose_onnx(tmp_path / "pose.onnx")]
    extract(*arguments, *own, "~/labels/k.json")
    assert "is accepted" in extract(*arguments, "--check", *own, "~/labels/k.json").out
    # Relative to the working directory.
    monkeypatch.chdir(tmp_path / "home")
    assert "'labels/k.json' is accepted" in extract(*arguments, "--check", *own, "labels/k.json").out
    assert "'labels/k.json' is there already" in extract(*arguments, *own, "labels/k.json", status=1).err
    # One that is not there yet is in the data set's folder.
    extract(*arguments, *own, "sub/k.json")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("k.json")} == {
        "home/labels/k.json",
        "own/sub/k.json",
    }


def test_a_file_of_a_folder_is_where_training_on_it_would_look(extract, tmp_path, small_run, monkeypatch):
    (tmp_path / "own" / "keypoints.json").rename(tmp_path / "k.json")
    monkeypatch.chdir(tmp_path)
    arguments = ["--images", "own", "DATASETS.KEYPOINTS", "k.json"]
    assert extract(*arguments, "--check").out.endswith("'k.json' is accepted\n")
    extract(*arguments, "--sheets")
    assert (tmp_path / "k_worst.png").exists()
    # What is written is in the folder.
    before = (tmp_path / "k.json").read_bytes()
    extract(*arguments, "--import", "coco", "k.json", "--overwrite")
    assert (tmp_path / "own" / "k.json").exists() and (tmp_path / "k.json").read_bytes() == before
    assert "'own/k.json' is accepted" in extract(*arguments, "--check").out


def test_options_and_overrides_come_in_any_order(tool):
    ordered = ["--images", "x", "--import", "coco", "k.json", "--overwrite", "MODEL.DEVICE", "cpu", "SEED", "-1"]
    mixed = ["MODEL.DEVICE", "cpu", "--overwrite", "--images", "x", "SEED", "-1", "--import", "coco", "k.json"]
    assert parse_args(mixed) == parse_args(ordered)
    assert parse_args(mixed).opts == ["MODEL.DEVICE", "cpu", "SEED", "-1"]


def test_sheets_replace_nothing_but_sheets(extract, tmp_path, crops, write_pose_onnx):
    arguments = ["--images", crops, "--model", "onnx", "--weights", write_pose_onnx(tmp_path / "pose.onnx")]
    (tmp_path / "k_worst.png").write_bytes(b"a diagram")
    refused = extract(*arguments, "--output", tmp_path / "k.json", status=1).err
    assert "would replace" in refused and "k_worst.png', which is none: add --overwrite" in refused
    assert not (tmp_path / "k.json").exists() and (tmp_path / "k_worst.png").read_bytes() == b"a diagram"
    extract(*arguments, "--output", tmp_path / "k.json", "--overwrite")
    assert Image.open(tmp_path / "k_worst.png").width > 200
    # A crop that happens to have the name of a sheet is one, and stays.
    Image.new("RGB", (32, 64)).save(crops / "k_sample.png")
    assert "replace the image" in extract(*arguments, "--output", crops / "k.json", "--overwrite", status=1).err
    assert Image.open(crops / "k_sample.png").size == (32, 64)
    # The sheets of one extraction are no crops of another.
    extract(*arguments, "--output", crops / "first.json")
    extract(*arguments, "--output", crops / "second.json")
    for name in ("first", "second"):
        assert len(load_keypoints(str(crops / f"{name}.json"))) == 61


def test_sheets_are_had_again_without_finding_the_points_again(extract, tmp_path, crops, write_pose_onnx, monkeypatch):
    arguments = ["--images", crops, "--model", "onnx", "--weights", write_pose_onnx(tmp_path / "pose.onnx")]
    (crops / "keypoints_worst.png").mkdir()
    assert "is none: add --overwrite" in extract(*arguments, status=1).err
    failed = extract(*arguments, "--overwrite", status=1)
    assert "keypoints_worst.png' cannot be written (Is a directory)" in failed.err and "with --sheets" in failed.err
    before = (crops / "keypoints.json").stat()
    (crops / "keypoints_worst.png").rmdir()
    done = extract(*arguments, "--sheets")
    assert "left_ankle" in done.out and f"sheet       {crops / 'keypoints_worst.png'}" in done.out
    assert Image.open(crops / "keypoints_worst.png").width > 200
    assert (crops / "keypoints.json").stat().st_mtime_ns == before.st_mtime_ns
    (crops / "keypoints.json").unlink()
    assert "does not exist" in extract(*arguments, "--sheets", status=1).err


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
    assert "error: 16 of 16 images" in refused and refused.endswith(
        " is refused\n"
    )  # DOUBTFUL_KEYPOINTS is no help here


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


def test_a_file_that_appears_during_an_import_is_not_replaced(extract, tool, tmp_path, small_run, monkeypatch):
    own = tmp_path / "own"
    (own / "keypoints.json").rename(tmp_path / "theirs.json")
    read = tool.IMPORTERS["coco"]

    def slow(*args, **options):
        (own / "keypoints.json").write_text("mine")
        return read(*args, **options)

    monkeypatch.setitem(tool.IMPORTERS, "coco", slow)
    done = extract("--images", own, "--import", "coco", tmp_path / "theirs.json", status=1)
    assert "is there already" in done.err
    assert (own / "keypoints.json").read_text() == "mine"


def test_images_that_cannot_be_read_are_skipped_in_an_import_too(extract, tmp_path, small_run):
    own = tmp_path / "own"
    (own / "keypoints.json").rename(tmp_path / "theirs.json")
    broken, cut = sorted(own.glob("query/*.jpg"))[:2]
    broken.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:-50])  # its size is still there
    done = extract("--images", own, "--import", "coco", tmp_path / "theirs.json", status=3)
    assert f"Image '{broken}' cannot be read" in done.err and f"Image '{cut}' cannot be read" in done.err
    found, names = (load_keypoints(str(path)) for path in (own / "keypoints.json", tmp_path / "theirs.json"))
    assert set(found) == set(names) - {f"query/{path.name}" for path in (broken, cut)}


def test_an_import_trusts_points_as_the_config_does(extract, tmp_path, small_run):
    own = tmp_path / "own"
    content = json.loads((own / "keypoints.json").read_text())
    content["annotations"][0]["keypoints"][:3] = [500, 5, 0.4]
    (own / "keypoints.json").unlink()
    (tmp_path / "theirs.json").write_text(json.dumps(content))
    arguments = ["--images", own, "--import", "coco", tmp_path / "theirs.json"]
    first = content["images"][0]["file_name"]
    done = extract(*arguments)
    assert f"not trusted: 1 in 1 of 28 images, first nose of {first} at x 500, y 5" in done.out + done.err
    assert load_keypoints(str(own / "keypoints.json"))[first].points[0].tolist() == [500, 5, 0]
    done = extract(*arguments, "--overwrite", "DATASETS.KEYPOINT_MIN_SCORE", "0.5")
    assert "not trusted" not in done.out + done.err


def normalised(content):
    sizes = {entry["id"]: (entry["width"], entry["height"], 1) for entry in content["images"]}
    for entry in content["annotations"]:
        points = np.array(entry["keypoints"]).reshape(17, 3) / sizes[entry["image_id"]]
        entry["keypoints"] = points.ravel().tolist()
    return content


def upside_down(content):
    for entry in content["annotations"]:
        points = np.array(entry["keypoints"]).reshape(17, 3)
        points[:, 1] = 32 - points[:, 1]
        entry["keypoints"] = points.ravel().tolist()
    return content


def of_larger_crops(content):
    for entry in content["annotations"]:
        points = np.array(entry["keypoints"]).reshape(17, 3) * [2, 2, 1]
        entry["keypoints"] = points.ravel().tolist()
    return content


def of_their_neighbours(content):
    """As the mean of each person's points, the score tells whose they are."""
    entries = content["annotations"]
    for number, entry in enumerate(entries):
        entry["keypoints"][2::3] = np.linspace(0.5, 1, 17).round(3).__sub__(number / 100).tolist()
    scores = [float(np.mean(entry["keypoints"][2::3])) for entry in entries]
    for entry, score in zip(entries, [*scores[1:], scores[0]], strict=True):
        entry["score"] = score
    return content


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (normalised, "coordinates are normalised in 28 of 28 images"),
        (upside_down, "upside down, or joints in reverse order"),
        (of_larger_crops, "points of other images, or no pixels: far outside in 28 of 28 images"),
        (of_their_neighbours, "points stand in other images' entries"),
    ],
)
def test_what_a_check_refuses_import_and_training_refuse_too(extract, tmp_path, small_run, capsys, damage, message):
    own = tmp_path / "own"
    content = damage(json.loads((own / "keypoints.json").read_text()))
    (own / "keypoints.json").write_text(json.dumps(content))
    refused = extract("--images", own, "--check", status=1).out
    assert message in refused
    assert refused.endswith(
        " is refused (training takes it with DATASETS.DOUBTFUL_KEYPOINTS warn, if the points are right)\n"
    )
    trained = train(
        default_argument_parser().parse_args(["--config-file", "configs/MGRe/Base-MGRe.yml", *small_run]), capsys
    )
    assert trained[0] == 1 and message in trained[1] and "set DATASETS.DOUBTFUL_KEYPOINTS warn" in trained[1]
    (own / "keypoints.json").rename(tmp_path / "theirs.json")
    arguments = ["--images", own, "--import", "coco", tmp_path / "theirs.json"]
    done = extract(*arguments, status=1)
    assert message in done.err and "set DATASETS.DOUBTFUL_KEYPOINTS warn" in done.err
    assert not (own / "keypoints.json").exists()
    done = extract(*arguments, "DATASETS.DOUBTFUL_KEYPOINTS", "warn")
    assert message in done.out + done.err and (own / "keypoints.json").exists()


def train(args, capsys) -> tuple[int, str]:
    capsys.readouterr()
    return main(lambda: run(args)), capsys.readouterr().err


def test_a_file_of_the_training_split_alone_is_accepted(extract, tmp_path, small_run):
    own = tmp_path / "own"
    content = json.loads((own / "keypoints.json").read_text())
    kept = {entry["id"] for entry in content["images"] if entry["file_name"].startswith("bounding_box_train")}
    content["images"] = [entry for entry in content["images"] if entry["id"] in kept]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in kept]
    (own / "keypoints.json").write_text(json.dumps(content))
    arguments = ["--check", "DATASETS.CUSTOM.ROOT", str(own)]
    done = extract("--config-file", "configs/MGRe/custom.yml", *arguments)
    num_test = len(list(own.glob("query/*.jpg"))) + len(list(own.glob("bounding_box_test/*.jpg")))
    assert (
        f"warning: {num_test} of {num_test} images (100.0%" in done.out and "to test on have no key points" in done.out
    )
    assert "is accepted" in done.out
    # Without a config nobody knows which images are trained on.
    assert f"{num_test} of {num_test + 16} images" in extract("--images", own, "--check").out


def test_a_set_to_test_on_needs_no_file(extract, two_sets):
    arguments, overrides, folders = two_sets
    words = [*overrides, "DATASETS.NAMES", "('Market1501',)"]
    extract(*arguments, "--check", *words, status=1)
    extract(*arguments, *words)
    (folders[1] / "keypoints.json").unlink()
    checked = extract(*arguments, "--check", *words).out
    assert f"warning: '{folders[1] / 'keypoints.json'}' does not exist; images to test on need none" in checked


def test_names_that_are_no_text(run_script, tmp_path, crops, write_pose_onnx):
    """As bytes of another encoding; from the command line, as the streams there are stricter than a test's."""
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.rename(crops, folder)
    os.rename(folder + b"/0000.png", folder + b"/\xe9.png")
    weights = write_pose_onnx(tmp_path / "pose.onnx")
    done = run_script(TOOL, "--images", os.fsdecode(folder), "--model", "onnx", "--weights", weights)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert "1 images were skipped" in done.stderr and "'\\udce9.png' has a name that is not UTF-8" in done.stderr
    assert "caf\\udce9/keypoints.json" in done.stdout
    with open(folder + b"/keypoints.json") as file:
        assert len(json.load(file)["images"]) == 59


def test_what_is_downloaded_is_told_first(extract, crops, monkeypatch, tmp_path):
    monkeypatch.setattr(hrnet, "WEIGHTS_URL", "ftp://example.org/x/hrnet_w32_256x192.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path: pytest.fail("not without a word"))
    assert "neither http nor https" in extract("--images", crops, "--model", "hrnet", status=1).err
    monkeypatch.setattr(hrnet, "WEIGHTS_URL", "https://example.org/x/hrnet_w32_256x192.pth")

    def no_network(url, path):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    done = extract("--images", crops, "--model", "hrnet", status=1)
    kept = tmp_path / "torch" / "hub" / "mgre" / "hrnet_w32_256x192.pth"
    assert f"Downloading '{kept}' (about 114 MB) from https://example.org/x/hrnet_w32_256x192.pth" in done.out
    assert f"put it at '{kept}', or give a weight file with --weights" in done.err


def test_the_device_is_the_configs_then_the_one_that_is_here(tool, tmp_path, monkeypatch):
    def device(*words):
        return tool.load(parse_args([str(word) for word in words])).MODEL.DEVICE

    base = os.path.abspath("configs/MGRe/custom.yml")
    (tmp_path / "base.yml").write_text(f"_BASE_: {base}\nMODEL:\n  DEVICE: cuda:1\n")
    (tmp_path / "named.yml").write_text("_BASE_: base.yml\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device("--config-file", base) == device("--images", "x") == "cuda"
    assert device("--config-file", tmp_path / "named.yml") == "cuda:1"
    assert device("--config-file", "configs/MGRe/quickstart.yml") == "cpu"
    assert device("--config-file", tmp_path / "named.yml", "MODEL.DEVICE", "cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device("--config-file", base) == device("--images", "x") == "cpu"
    with pytest.raises(SetupError, match=r"MODEL.DEVICE is 'cuda:1', but .* no CUDA device here"):
        device("--config-file", tmp_path / "named.yml")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "", "²"])
def test_a_wrong_batch_size_says_what_is_allowed(tool, capsys, value):
    with pytest.raises(SystemExit):
        parse_args(["--images", "x", f"--batch-size={value}"])
    assert (
        f"argument --batch-size: '{value}' is not allowed: give a whole number of 1 or more" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "nowhere"], "folder 'nowhere' cannot be read (No such file or directory)"),
        (["--images", ""], "folder '' cannot be read"),
        (["--images", "tests/pose"], "'tests/pose' has no images"),
        (["--config-file", ""], "--config-file is empty"),
        (["--images", "{crops}", "--output", "{crops}"], "' is a folder: name a file"),
        (
            ["--images", "{crops}", "--model", "hrnets"],
            "no such pose model (nearest: hrnet); known ones: hrnet, onnx, rtmpose",
        ),
        (["--images", "{crops}", "--model", "onnx"], "give an .onnx file with --weights"),
        (["--images", "{crops}", "--model", "hrnet", "--weights", "none.pth"], "'none.pth' does not exist"),
        (["--images", "{crops}", "--import", "openpose", "x"], "known ones: boxmot, coco, kpr, openpifpaf, yolo"),
        (
            ["--images", "{crops}", "--import", "coco", "{crops}"],
            "crops': is a folder; name the file in it, or the form",
        ),
        (["--images", "{crops}", "--import", "boxmot", "{crops}"], "metadata.json' does not exist; give BoxMOT's"),
        (["--images", "{crops}", "--import", "kpr", "{crops}/0000.png"], "is one file; name the folder that has"),
        (["--images", "{crops}", "--check", "--output", "{crops}"], "crops' is a folder; name the file in it"),
        (["--images", "{crops}", "--check"], "make it by the same command without --check, or set"),
        (["--images", "{crops}", "MODEL.MGRE.STAGE", "1"], "nearest: MODEL.MGRE.STAGES"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(extract, tmp_path, crops, arguments, message):
    arguments = [word.replace("{crops}", str(crops)) for word in arguments]
    done = extract(*arguments, status=1)
    assert message in done.out + done.err
    assert "Traceback" not in done.err
    assert not (crops / "keypoints.json").exists()


def test_the_command_line(tool, capsys):
    with pytest.raises(SystemExit):
        parse_args(["--help"])
    usage = capsys.readouterr().out
    for name in ("rtmpose", "hrnet", "onnx", "coco", "boxmot", "kpr", "--sheets"):
        assert name in usage
