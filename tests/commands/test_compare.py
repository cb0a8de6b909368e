import json
import shutil

import mgre
import numpy as np
import pytest
import torch
from mgre.commands import compare as command
from mgre.evaluation.calibration import Calibration, Rate
from mgre.evaluation.error_rates import calibrate
from mgre.inference.model import Model
from mgre.inference.similarity import similarity
from mgre.system.model_files import write_record
from mgre_cli.compare import main
from PIL import Image


@pytest.fixture
def crops(write_crops):
    return [str(path) for path in write_crops(3)]


def calibrated(path, num_identities=20, **changes):
    """Put the calibration of made features with many scores into a model."""
    rng = np.random.default_rng(0)
    people = np.repeat(rng.normal(size=(num_identities, 6)), 4, axis=0)
    features = people + 0.3 * rng.normal(size=people.shape)
    labels = np.repeat(np.arange(num_identities), 4), np.tile([1, 1, 2, 2], num_identities)
    loaded = mgre.load(path, device="cpu")
    found = calibrate(features, *labels, dataset="Made", fingerprint=loaded.fingerprint)
    values = found.to_dict() | changes
    write_record(path, mgre.record.ModelRecord(**{**vars(loaded.record), "calibration": values}), path)
    return found


def test_two_images_give_the_cosine_and_the_shares(model, crops, capsys):
    assert main([*crops[:2], "--model", model, "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    features = mgre.load(model, device="cpu").embed(crops[:2])
    cosine = float(similarity(features[:1], features[1:])[0, 0])
    assert found["pairs"][0]["cosine"] == pytest.approx(cosine, abs=1e-5)
    assert sum(share["value"] for share in found["shares"]) == pytest.approx(cosine, abs=1e-5)
    assert "verdict" not in found["pairs"][0] and "calibration" not in found
    assert main([*crops[:2], "--model", model, "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert f"cosine  {cosine:.4f}" in shown and "mgre calibrate" in shown
    for share in found["shares"]:
        assert f"{share['region'].replace('_', ' ')}" in shown and f"{share['value']:+.4f}" in shown


def test_a_calibrated_model_gives_rates_and_a_verdict(model, crops, capsys):
    calibration = calibrated(model)
    options = [*crops[:2], "--model", model, "--device", "cpu"]
    assert main([*options, "--json", "--rate", "0.1"]) == 0
    pair = json.loads(capsys.readouterr().out)["pairs"][0]
    assert pair["threshold"] == pytest.approx(calibration.threshold(0.1))
    expected = "the same person" if pair["cosine"] >= pair["threshold"] else "different people"
    assert pair["verdict"] == expected
    rate = calibration.false_match_rate(pair["cosine"])
    assert pair["false_match_rate"] == pytest.approx(rate._asdict())
    assert main([*options, "--rate", "0.1"]) == 0
    shown = capsys.readouterr()
    assert f"verdict               {expected}: at a false-match rate of 0.1" in shown.out
    assert "Made (20 identities, 2 cameras" in shown.out and not shown.err


def test_too_few_pairs_give_no_verdict(model, crops, capsys):
    calibrated(model)
    assert main([*crops[:2], "--model", model, "--device", "cpu", "--rate", "0.001"]) == 0
    shown = capsys.readouterr().out
    assert "no verdict: too few pairs for a false-match rate of 0.001: Made has 20 identities" in shown
    assert "\nverdict " not in shown


def test_a_stale_or_seen_calibration_is_said(model, crops, capsys):
    calibrated(model, fingerprint="other", seen_in_training=True)
    assert main([*crops[:2], "--model", model, "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    assert "is of other weights" in shown.err and shown.err.count("\n") == 1
    assert "on which the model was trained, so the rates are too good" in shown.out


def test_more_images_give_all_pairs_the_most_alike_first(model, crops, capsys):
    calibrated(model)
    assert main([*crops, "--model", model, "--device", "cpu", "--rate", "0.1"]) == 0
    header, *rows, _ = capsys.readouterr().out.strip().splitlines()
    assert header.split() == ["cosine", "false-match", "rate", "verdict", "images"]
    cosines = [float(row.split()[0]) for row in rows]
    features = mgre.load(model, device="cpu").embed(crops)
    expected = similarity(features, features)[np.triu_indices(3, 1)]
    np.testing.assert_allclose(cosines, sorted(expected, reverse=True), atol=1e-4)


def test_a_picture_is_drawn(model, crops, tmp_path):
    path = tmp_path / "pair.png"
    assert main([*crops[:2], "--model", model, "--device", "cpu", "--picture", str(path)]) == 0
    assert Image.open(path).width > 700


def test_a_model_without_regions_gives_the_cosine_and_says_so(save_model, crops, capsys, tmp_path):
    model = str(save_model("quickstart-baseline")[1])
    picture = ["--picture", str(tmp_path / "pair.png")]
    assert main([*crops[:2], "--model", model, "--device", "cpu", *picture]) == 0
    assert f"'{model}' has no regions" in capsys.readouterr().out


class FeaturesOnly(Model):
    """As an exported file of an MGRe without the file of its regions."""

    fingerprint = "abc"

    def embed_pixels(self, pixels):
        return pixels.mean(axis=(2, 3)).astype(np.float32)


def test_a_file_without_the_regions_vectors_gives_the_cosine_and_says_why_no_more(crops, capsys, monkeypatch):
    record = mgre.record.ModelRecord("MGRe", (8, 4), None, (0.0,) * 3, (1.0,) * 3, "", {"stage4": ["whole_image"]})
    monkeypatch.setattr(command, "load", lambda path, **options: FeaturesOnly(record, path))
    assert main([*crops[:2], "--model", "model.onnx"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("cosine  0.9") and "No regions' shares: 'model.onnx' gives features only" in shown


def test_poor_images_are_doubted_in_a_line_each(model, crops, tmp_path, capsys):
    tiny, grey = str(tmp_path / "tiny.png"), str(tmp_path / "grey.png")
    Image.new("RGB", (3, 1), (200, 10, 10)).save(tiny)
    Image.open(crops[0]).convert("L").save(grey)
    assert main([tiny, grey, "--model", model, "--device", "cpu"]) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert [line.split("'")[1] for line in warnings] == [tiny, grey]


def bad_words(crops, model, tmp_path):
    """By the message, the words of a command that ends with it."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8no jpeg")
    other = tmp_path / "other.pth"
    content = torch.load(model)
    state = {name: tensor for name, tensor in content["model"].items() if "stage2" not in name}
    torch.save(content | {"model": state}, other)
    bare = tmp_path / "bare.pth"
    torch.save(content["model"], bare)
    pair = [*crops[:2], "--model"]
    return {
        "broken.jpg' cannot be read": [crops[0], str(broken), "--model", model],
        "missing.jpg' does not exist": [crops[0], str(tmp_path / "missing.jpg"), "--model", model],
        "is of another architecture": [*pair, str(other)],
        "has no record of its model": [*pair, str(bare)],
        "missing.pth' is not there": [*pair, "missing.pth"],
        "the false-match rate is 0;": [*pair, model, "--rate", "0"],
        "the false-match rate is 1.5;": [*pair, model, "--rate", "1.5"],
        "does not end like a picture": [*pair, model, "--picture", str(tmp_path / "pair.txt")],
    }


def test_a_fault_is_one_line(crops, model, tmp_path, capsys):
    for message, words in bad_words(crops, model, tmp_path).items():
        assert main([*words, "--device", "cpu"]) == 1
        shown = capsys.readouterr().err
        assert message in shown and shown.startswith("error: ") and shown.count("\n") == 1, shown


def test_names_are_escaped(model, crops, tmp_path, capsys):
    path = str(tmp_path / "a\x1b[31m.png")
    shutil.copy(crops[0], path)
    assert main([path, *crops[1:], "--model", model, "--device", "cpu"]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("words", [["a.jpg"], ["a.jpg", "b.jpg", "c.jpg", "--picture", "p.png"]])
def test_the_number_of_images_is_checked_first(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*words, "--model", "model.pth"])
    assert caught.value.code == 2


def test_a_calibration_s_name_is_no_command_to_a_terminal(crops, capsys, monkeypatch):
    rates = [Rate(1.0, 0.9, 1.0), Rate(0.0, 0.0, 0.1)]
    made = Calibration("a\x1b[2Jb", False, "abc", 60, 2, 99, 50, 99, [0.0, 1.0], rates, rates[::-1], [(0.1, 0.9)])
    size = ((8, 4), None, (0.0,) * 3, (1.0,) * 3)
    record = mgre.record.ModelRecord("Baseline", *size, "", calibration=made.to_dict())
    monkeypatch.setattr(command, "load", lambda path, **options: FeaturesOnly(record, path))
    assert main([*crops[:2], "--model", "model.onnx"]) == 0
    shown = capsys.readouterr().out
    assert r"Rates are of a\x1b[2Jb" in shown and "\x1b" not in shown
