import dataclasses
import json
import math

import pytest
from mgre.errors import ConfigError, WeightsError
from mgre.evaluation.calibration import Calibration, Rate, lowest_rate, needed_identities
from mgre.record import ModelRecord

MADE = Calibration(
    dataset="drawn",
    seen_in_training=False,
    fingerprint="abc",
    num_identities=60,
    num_cameras=4,
    num_images=720,
    num_matches=3240,
    num_non_matches=191160,
    scores=[0.0, 0.5, 1.0],
    false_match=[Rate(1.0, 0.9, 1.0), Rate(0.1, 0.06, 0.2), Rate(0.0, 0.0, 0.01)],
    false_non_match=[Rate(0.0, 0.0, 0.05), Rate(0.2, 0.1, 0.4), Rate(1.0, 0.9, 1.0)],
    thresholds=[(0.1, 0.5)],
)


def record_with(calibration):
    record = ModelRecord("MGRe", (96, 48), None, (0.0,) * 3, (1.0,) * 3, "", calibration=calibration)
    return ModelRecord.from_json(record.to_json(), "model.pth")


def test_a_record_holds_it():
    assert Calibration.from_record(record_with(MADE.to_dict()), "model.pth") == MADE
    assert Calibration.from_record(record_with(None), "model.pth") is None
    least = dataclasses.replace(MADE, num_identities=2, num_matches=1, num_non_matches=1)
    assert Calibration.from_record(record_with(least.to_dict()), "model.pth") == least


def test_rates_between_the_scores_are_between_theirs():
    assert MADE.false_match_rate(0.25) == pytest.approx((0.55, 0.48, 0.6))
    assert MADE.false_non_match_rate(0.75) == pytest.approx((0.6, 0.5, 0.7))
    assert MADE.false_match_rate(-0.5) == MADE.false_match[0]
    assert MADE.false_match_rate(1.0) == MADE.false_match_rate(1.01) == MADE.false_match[-1]


@pytest.mark.parametrize(("rate", "score"), [(0.55, 0.25), (0.1, 0.5), (0.05, 0.75), (0.01, 0.95)])
def test_a_threshold_is_where_the_rate_is(rate, score):
    assert MADE.threshold(rate) == pytest.approx(score)
    assert MADE.false_match_rate(MADE.threshold(rate)).value == pytest.approx(rate)


def test_too_few_pairs_are_said():
    # 60 identities are 1,770 pairs of identities; 3 / 1,770 is 0.0017.
    assert MADE.lowest_rate == pytest.approx(3 / 1770)
    with pytest.raises(ConfigError, match=r"too few pairs for a false-match rate of 0\.001: drawn has 60 .* needs 78"):
        MADE.threshold(0.001)


@pytest.mark.parametrize("rate", [0.5, 0.01, 0.001, 1e-6])
def test_the_number_of_identities_is_the_least_that_is_enough(rate):
    needed = needed_identities(rate)
    assert lowest_rate(needed) <= rate < lowest_rate(needed - 1)
    assert math.comb(needed, 2) * rate >= 3


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2, float("nan")])
def test_a_rate_is_between_0_and_1(rate):
    with pytest.raises(ConfigError, match=r"allowed: a number between 0 and 1, like 0\.001"):
        MADE.threshold(rate)


@pytest.mark.parametrize(
    "change",
    [
        {"scores": [0.0, 1.0, 0.5]},
        {"scores": []},
        {"scores": [0.0, 0.5]},
        {"scores": "abc"},
        {"false_match": [[1.0, 0.9]] * 3},
        {"false_match": 7},
        {"false_match": [[1.0, 0.9, math.nan]] * 3},
        {"unknown": 1},
        {"thresholds": [[1]]},
        {"num_identities": "many"},
        {"num_identities": 1},
    ],
)
def test_a_damaged_one_is_one_line(change):
    values = json.loads(json.dumps(MADE.to_dict() | change))
    with pytest.raises(WeightsError, match=r"calibration in 'model\.pth' is damaged .* mgre calibrate") as caught:
        Calibration.from_record(record_with(values), "model.pth")
    assert "\n" not in str(caught.value)


def test_all_fields_are_written():
    assert set(MADE.to_dict()) == {field.name for field in dataclasses.fields(Calibration)}
