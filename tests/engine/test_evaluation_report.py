import dataclasses
from types import SimpleNamespace

import pytest
from mgre.engine import evaluation_report
from mgre.system.model_files import read_record, write_record


@pytest.mark.parametrize(
    ("keys", "is_calibrated"),
    [
        ({}, True),
        ({"SEED": "7"}, True),
        ({"MODEL.MGRE.STAGE_WEIGHTS": "(0.1, 0.5, 0.7, 0.8)"}, False),
        ({"INPUT.SIZE_TEST": "(80, 48)"}, False),
        ({"TEST.FLIP.ENABLED": "True"}, False),
    ],
)
def test_thresholds_are_left_out_where_the_features_are_others(
    save_model, small_config, tmp_path, monkeypatch, keys, is_calibrated
):
    toy = {"MODEL.MGRE.BACKBONE": "build_toy_backbone"}
    _, path = save_model(**toy)
    write_record(path, dataclasses.replace(read_record(path), calibration={"dataset": "Own"}), path)
    subjects = []
    monkeypatch.setattr(evaluation_report, "write_report", lambda path, evaluation, subject: subjects.append(subject))
    cfg = small_config(**toy, **keys, **{"MODEL.WEIGHTS": str(path)})
    evaluation_report.write_reports(cfg, [SimpleNamespace(name="Drawn")], tmp_path / "report.html")
    assert (subjects[0].record.calibration is not None) == is_calibrated
