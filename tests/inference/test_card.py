import dataclasses

import pytest
import torch
from mgre.errors import WeightsError
from mgre.evaluation.calibration import Calibration, Rate
from mgre.inference.card import model_card
from mgre.record import ModelRecord
from mgre_cli.main import main

RECORD = ModelRecord(
    architecture="MGRe",
    input_size=(256, 128),
    center_crop=None,
    pixel_mean=(1.5, 2, 3),
    pixel_std=(4, 5, 6),
    config="",
    regions={"stage1": ["head", "legs"], "stage4": ["whole_image"]},
    stage_weights={"stage1": 0.35, "stage4": 0.8},
    trained_on=["Market1501", "Own"],
    figures={"mAP": 54.321, "IoU/mean": 0.6543},
    versions={"torch": "2.14"},
    licence="for <b>research</b>",
)


def sections(card):
    return {part.split("\n")[0]: part for part in card.split("\n## ")}


def rows(section):
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    return dict(cells[2:])


def test_the_record_is_on_the_card():
    found = sections(model_card(RECORD, "m.pth"))
    assert rows(found["# Model card: m.pth"]) == {
        "architecture": "MGRe",
        "trained on": "Market1501, Own",
        "regions of stage1": "head, legs (weight 0.35)",
        "regions of stage4": "whole_image (weight 0.8)",
    }
    data = rows(found["Data"])
    assert data["Market1501"].startswith("for academic research") and data["Own"].startswith("not known here")
    assert rows(found["Figures"]) == {"mAP": "54.3 %", "IoU/mean": "0.65"}
    assert rows(found["Preparation of images"]) == {
        "resized to": "256 x 128 pixels (height x width), bicubic",
        "channels": "red, green, blue, from 0 to 255",
        "mean": "1.5, 2, 3",
        "standard deviation": "4, 5, 6",
    }
    assert rows(found["Versions"]) == {"torch": "2.14"}
    assert "personal data" in found["Personal data"] and "`mgre index remove`" in found["Personal data"]
    assert found["Calibration"].split("\n\n")[1].startswith("None")


def test_nothing_in_a_record_is_html():
    hostile = dataclasses.replace(RECORD, trained_on=["<script>|x"], figures={"a\n## b": 1.0})
    card = model_card(hostile, "m\n# other")
    assert "<" not in card
    assert "&lt;script&gt;\\|x" in card and "\n## b" not in card and "\n# other" not in card


def test_a_calibration_is_named():
    rates = [Rate(1.0, 0.9, 1.0), Rate(0.0, 0.0, 0.1)]
    made = Calibration("OwnVal", True, "abc", 40, 3, 99, 50, 700, [0.0, 1.0], rates, rates[::-1], [(0.001, 0.61234)])
    card = model_card(dataclasses.replace(RECORD, calibration=made.to_dict(), center_crop=(224, 112)), "m.pth")
    assert rows(sections(card)["Calibration"]) == {
        "dataset": "OwnVal",
        "identities": "40",
        "cameras": "3",
        "matches": "50",
        "non matches": "700",
        "seen in training": "True",
        "cosine at a false-match rate of 0.001": "0.6123 or more",
    }
    assert "| then cut to | 224 x 112 pixels around the centre |" in card
    with pytest.raises(WeightsError, match=r"the calibration in 'm\.pth' is damaged"):
        model_card(dataclasses.replace(RECORD, calibration={"thresholds": 5}), "m.pth")


@pytest.mark.parametrize("empty", [{"figures": {}}, {"trained_on": []}, {"versions": {}}, {"licence": ""}])
def test_what_is_not_known_is_said(empty):
    card = model_card(dataclasses.replace(RECORD, **empty), "m.pth")
    assert ("Versions" not in card) == ("versions" in empty)
    assert not any(line.startswith("| |") for line in card.splitlines())


def test_the_command(save_model, tmp_path, capsys):
    _, path = save_model()
    assert main(["card", str(path)]) == 0
    card = capsys.readouterr().out
    assert card.startswith("# Model card: model.pth\n") and "| mAP | 12.5 % |" in card
    assert main(["card", str(path), "--output", str(tmp_path / "card.md")]) == 0
    assert (tmp_path / "card.md").read_text() == card


def test_a_model_without_a_record_has_no_card(save_model, tmp_path, capsys):
    model, path = save_model()
    torch.save(model.state_dict(), path)
    assert main(["card", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: '{path}' has no record of its model: make a file that has one")


def test_nothing_in_a_record_is_a_command_to_a_terminal_or_a_link():
    bad = "a\x1b[2J ![x](https://example.org/seen.png)"
    record = dataclasses.replace(RECORD, licence=bad, trained_on=[bad], versions={bad: bad})
    card = model_card(record, "m.pth")
    assert "\x1b" not in card and "![" not in card and "\\x1b&#91;2J" in card
