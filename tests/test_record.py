import json

import pytest
from mgre.errors import WeightsError
from mgre.record import ModelRecord

RECORD = ModelRecord(
    architecture="MGRe",
    input_size=(256, 128),
    center_crop=(224, 112),
    pixel_mean=(1.5, 2, 3),
    pixel_std=(4, 5, 6),
    config="SEED: 1",
    regions={"stage1": ["head"], "stage4": ["whole_image"]},
    stage_weights={"stage1": 0.35, "stage4": 0.8},
    trained_on=["Own"],
    figures={"mAP": 54.3},
    calibration={"dataset": "Own"},
    versions={"torch": "2.14"},
    licence="none",
)


def test_a_record_comes_back_as_it_was():
    assert ModelRecord.from_json(RECORD.to_json(), "m.pth") == RECORD


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture", 7),
        ("input_size", [256]),
        ("input_size", ["256", "128"]),
        ("input_size", [10**9, 10**9]),
        ("input_size", 256),
        ("center_crop", [0, 0]),
        ("pixel_mean", [1, 2]),
        ("pixel_std", ["a", "b", "c"]),
        ("config", None),
        ("regions", {"stage1": "head"}),
        ("regions", {"stage1": [1]}),
        ("regions", ["head"]),
        ("stage_weights", {"stage1": "heavy"}),
        ("trained_on", "Own"),
        ("figures", {"mAP": "high"}),
        ("calibration", [1]),
        ("versions", {"torch": 2}),
        ("interpolation", "lanczos"),
        ("format", "new"),
        ("colour", "red"),
    ],
)
def test_a_value_of_another_kind_is_one_line(field, value):
    text = json.dumps(json.loads(RECORD.to_json()) | {field: value})
    with pytest.raises(WeightsError, match=r"the record in 'm\.pth' is damaged") as caught:
        ModelRecord.from_json(text, "m.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "7", "{}", "[" * 100_000, '{"format": 1}'])
def test_what_is_no_record_is_one_line(text):
    with pytest.raises(WeightsError, match="is damaged"):
        ModelRecord.from_json(text, "m.pth")
