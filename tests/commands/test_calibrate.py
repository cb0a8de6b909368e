import errno
from pathlib import Path

import mgre
import numpy as np
import pytest
import torch
from mgre.commands import calibrate as command
from mgre.errors import SetupError
from mgre.evaluation.calibration import Calibration
from mgre.evaluation.error_rates import calibrate
from mgre_cli.calibrate import main
from PIL import Image


@pytest.fixture
def crops(tmp_path, write_image):
    """A folder with four people, under two cameras twice each, a junk image and background."""
    folder = tmp_path / "labelled"
    names = [f"{person:04d}_c{camera}_{frame}" for person in range(1, 5) for camera in (1, 2) for frame in (1, 2)]
    for name in (*names, "-1_c1_1", "0000_c2_1"):
        write_image(folder / f"{name}.png", (64, 32))
    return folder


def calibration_of(path):
    return Calibration.from_record(mgre.load(path, device="cpu").record, str(path))


def test_the_record_gets_the_rates_and_all_else_stays(model, crops, capsys, tmp_path):
    content = torch.load(model) | {"iteration": 7, "optimizer": {"state": {0: torch.ones(2)}}}
    torch.save(content, model)
    assert main([model, "--images", str(crops), "--device", "cpu"]) == 0
    paths = sorted(crops.glob("000[1-4]*"))
    labels = (np.array([path.name[part] for path in paths]) for part in (slice(0, 4), slice(6, 7)))
    loaded = mgre.load(model, device="cpu")
    expected = calibrate(loaded.embed(paths), *labels, dataset="labelled", fingerprint=loaded.fingerprint)
    found = calibration_of(model)
    assert found.num_images == 16 and found.num_identities == 4
    assert found == Calibration(**vars(expected))
    after = torch.load(model)
    assert set(after) == set(content) and after["iteration"] == 7 and after["optimizer"]["state"][0].tolist() == [1, 1]
    assert all(torch.equal(after["model"][name], tensor) for name, tensor in content["model"].items())
    before, now = (vars(mgre.record.ModelRecord.from_json(c["record"], "")) for c in (content, after))
    assert {name for name in now if now[name] != before[name]} == {"calibration"}
    assert Image.open(tmp_path / "model_calibration.png").width > 500
    shown = capsys.readouterr().out
    assert "labelled (4 identities, 2 cameras, 16 pairs of one person and 48 of different people" in shown
    assert "too few pairs: needs 9 identities" in shown  # 3 / (9 * 8 / 2) is 0.083


def test_a_copy_leaves_the_model_as_it_is(model, crops, tmp_path):
    before = Path(model).read_bytes()
    copy = str(tmp_path / "new" / "copy.pth")
    assert main([model, "--images", str(crops), "--output", copy, "--device", "cpu"]) == 0
    assert Path(model).read_bytes() == before
    assert calibration_of(copy).num_identities == 4


def test_a_csv_needs_no_split(model, crops, tmp_path):
    rows = [f"labelled/{path.name};{path.name[:4]};yard {path.name[6]}" for path in sorted(crops.glob("00*"))]
    (tmp_path / "list.csv").write_text("\n".join(["path;identity;camera", *rows]))
    assert main([model, "--images", str(tmp_path / "list.csv"), "--device", "cpu"]) == 0
    found = calibration_of(model)
    assert (found.dataset, found.num_images, found.num_identities, found.num_cameras) == ("list.csv", 17, 5, 2)


def test_the_validation_set_of_the_training_set_is_the_default(save_model, make_market_folder, tmp_path, capsys):
    folder = make_market_folder(tmp_path / "own", train_ids=range(1, 7))
    for path in list((folder / "bounding_box_train").glob("*_c1s1_*")):
        Image.open(path).save(path.with_name(path.name.replace("000001", "000009")))
    small = {"MODEL.MGRE.BACKBONE": "build_toy_backbone"}
    model = str(save_model(**small, **{"DATASETS.NAMES": "('CustomReID',)"})[1])
    words = ["DATASETS.CUSTOM.ROOT", str(folder), "DATASETS.VALIDATION.NUM_IDS", "4"]
    assert main([model, *words, "--device", "cpu"]) == 0
    warning = capsys.readouterr().err
    assert "CustomReID was trained on, with the identities of CustomReIDVal" in warning
    found = calibration_of(model)
    assert (found.dataset, found.num_identities, found.seen_in_training) == ("CustomReIDVal", 4, True)
    assert main([model, *words[:2], "--dataset", "CustomReID", "--device", "cpu"]) == 0
    assert "was trained on" not in capsys.readouterr().err
    found = calibration_of(model)
    assert (found.dataset, found.num_identities, found.num_images) == ("CustomReID", 2, 8)
    assert not found.seen_in_training


def test_unreadable_images_are_named_and_left_out(model, crops, capsys):
    (crops / "0001_c1_1.png").write_bytes(b"no image")
    assert main([model, "--images", str(crops), "--device", "cpu"]) == 3
    shown = capsys.readouterr().err
    assert "left out: Image" in shown and "0001_c1_1.png" in shown and "1 of 16 images" in shown
    assert calibration_of(model).num_images == 15


def test_without_matplotlib_the_model_is_calibrated(model, crops, capsys, monkeypatch):
    def missing(**options):
        raise SetupError("pictures and plots need the package matplotlib: pip install matplotlib")

    monkeypatch.setattr(command, "new_figure", missing)
    assert main([model, "--images", str(crops), "--device", "cpu"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("no plot: pictures and plots need")
    assert calibration_of(model).num_identities == 4


def test_a_full_disk_leaves_the_model_as_it_is(model, crops, capsys, monkeypatch, tmp_path):
    before = Path(model).read_bytes()

    def save(content, path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    assert main([model, "--images", str(crops), "--device", "cpu"]) == 1
    shown = capsys.readouterr()
    assert "No space left on device" in shown.err and "threshold" in shown.out  # the table is not lost
    assert Path(model).read_bytes() == before and not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ("0001_*", "labelled has 1 of two identities"),
        ("*_c1_*", "labelled has 1 of two cameras"),
        ("none", "has no images to calibrate on"),
    ],
)
def test_too_small_a_set_is_one_line(model, crops, capsys, kept, message):
    left = set(crops.glob(kept))
    for path in crops.iterdir():
        if path not in left:
            path.unlink()
    assert main([model, "--images", str(crops), "--device", "cpu"]) == 1
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1 and shown.startswith("error: ")


def test_other_faults_are_one_line(model, crops, capsys, tmp_path):
    bare, text = tmp_path / "bare.pth", tmp_path / "crops.txt"
    torch.save(torch.load(model)["model"], bare)
    text.write_text("no list")
    faults = {
        "has no record of its model": [str(bare), "--images", str(crops)],
        "missing' does not exist; allowed: a folder of crops, or a CSV": [model, "--images", str(tmp_path / "missing")],
        "no column path, identity, camera": [model, "--images", str(text)],
        "Data set 'Market' is not registered": [model, "--dataset", "Market"],
        "DATASETS.CUSTOM.ROOT is empty": [model, "--dataset", "CustomReID"],
    }
    for message, words in faults.items():
        assert main([*words, "--device", "cpu"]) == 1
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1, shown
