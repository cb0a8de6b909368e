"""tools/compare_results.py: a run beside the figures that its config gave."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from mgre.commands.compare_results import run
from mgre.commands.main import main
from mgre.config import load_config
from mgre.errors import ConfigError, DataError, SetupError
from mgre.reproduction.expected import (
    COLUMNS,
    EXPECTED_FILE,
    Expected,
    compare,
    expected_of,
    read_expected,
    read_found,
)

QUICK, START = "configs/MGRe/market-quick.yml", "configs/MGRe/quickstart.yml"
ONE = Expected(QUICK, "", "0", "mAP", 54.3, None, None, "a GPU", "torch 2", "abc", "a note")
FLOOR = replace(ONE, floor=40.0)
OVERLAP = replace(ONE, metric="IoU/mean", mean=0.63)
# The figures of a quickstart, all of them as expected or higher.
STARTED = {"mAP": 90.0, "IoU/mean": 0.7, "IoU/whole_body": 0.8}
THREE = replace(ONE, seeds="0 1 2", mean=83.0, deviation=1.5)


@pytest.fixture
def tool(load_tool):
    return load_tool("compare_results")


@pytest.fixture
def leave(tmp_path):
    """Write the results of a run."""

    def write(**figures: float) -> str:
        path = tmp_path / "results.json"
        path.write_text(json.dumps({name.replace("Rank_", "Rank-"): value for name, value in figures.items()}))
        return str(path)

    return write


def call(tool, *words: str) -> int:
    return main(lambda: run(tool.parse_args(list(words))))


@pytest.mark.parametrize(
    ("row", "found", "verdict"),
    [
        # One run: within 2 points, 52.3 to 56.3.
        *((ONE, 54.3, "ok"), (ONE, 52.3, "ok"), (ONE, 52.2, "lower"), (ONE, 56.3, "ok"), (ONE, 56.4, "higher")),
        # Three runs: within two deviations, 80 to 86.
        *((THREE, 80.0, "ok"), (THREE, 79.9, "lower"), (THREE, 86.0, "ok"), (THREE, 86.1, "higher")),
        (replace(THREE, deviation=0.0), 83.1, "higher"),
        # A floor takes the place of the lower end, and not of the upper one.
        *((FLOOR, 40.0, "ok"), (FLOOR, 39.9, "lower"), (FLOOR, 56.4, "higher")),
        # Two points of an IoU are 0.02.
        *((OVERLAP, 0.61, "ok"), (OVERLAP, 0.6, "lower"), (OVERLAP, 0.65, "ok"), (OVERLAP, 0.66, "higher")),
    ],
)
def test_verdicts_by_hand(row, found, verdict):
    assert row.judge(found) == verdict


def test_the_table_by_hand():
    ranks = replace(THREE, metric="Rank-1", mean=90.0)
    overlap = replace(OVERLAP, floor=0.5)
    table, passed = compare([ONE, ranks, overlap], {"mAP": 52.0, "Rank-1": 94.04, "IoU/mean": 0.504})
    cells = [line.split("  ") for line in table.splitlines()]
    assert [[c.strip() for c in line if c.strip()] for line in (cells[0], *cells[2:])] == [
        ["metric", "expected", "found", "difference", "verdict"],
        ["mAP, %", "54.3", "52.0", "-2.3", "lower"],
        ["Rank-1, %", "90.0 ± 1.5", "94.0", "+4.0", "higher"],
        ["IoU/mean", "0.63, at least 0.50", "0.50", "-0.13", "ok"],
    ]
    assert not passed
    assert compare([ranks], {"Rank-1": 94.04})[1]


def test_a_run_that_is_as_expected(tool, leave, capsys):
    assert call(tool, "--config-file", QUICK, "--results", leave(mAP=54.0, Rank_1=77.0, mINP=20.9, Rank_5=90)) == 0
    told = capsys.readouterr().out
    assert "NVIDIA H100" in told and "one run (seed 0)" in told and "commit f4a748c" in told
    assert "within 2 standard deviations of the mean or, where there is one run, within 2 points of it" in told
    assert told.count("ok") == 3 + 1 and "Rank-5" not in told


def test_a_run_that_is_lower(tool, leave, capsys):
    assert call(tool, "--config-file", QUICK, "--results", leave(mAP=50.0, Rank_1=77.0, mINP=20.9)) == 1
    assert "lower" in capsys.readouterr().out


def test_results_are_looked_for_in_the_output_folder(tool, leave, tmp_path):
    leave(**STARTED)
    assert call(tool, "--config-file", START, "OUTPUT_DIR", str(tmp_path), "SEED", "7", "MODEL.DEVICE", "cuda") == 0


def test_no_results(tool, tmp_path, capsys):
    assert call(tool, "--config-file", START, "OUTPUT_DIR", str(tmp_path)) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"'{tmp_path}/results.json' does not exist: train to the end by tools/train_net.py " in line
    assert f" --config-file {START}, or" in line


def test_a_quickstart_that_has_learned_too_little(tool, leave, capsys):
    """The gate of .ci/run."""
    assert call(tool, "--config-file", START, "--results", leave(**STARTED | {"IoU/mean": 0.49})) == 1
    assert re.search(r"IoU/mean +0.63, at least 0.50 +0.49 +-0.14 +lower", capsys.readouterr().out)
    assert f"tools/compare_results.py --config-file {START}" in Path(".ci/run").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"mAP": 5', "damaged: it is no JSON"),
        ("[]", "has no number for mAP; it has nothing$"),
        ('{"Rank-1": 5.0, "mINP": 3}', "has no number for mAP; it has Rank-1, mINP$"),
        ('{"mAP": "high"}', "has no number for mAP"),
        ('{"mAP": NaN}', "has no number for mAP"),
    ],
)
def test_damaged_results(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_found(path, START, ["mAP"])


def test_a_config_without_expected_figures(tool, capsys):
    assert call(tool, "--config-file", "configs/MGRe/market.yml") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"'configs/MGRe/market.yml' has no expected figures in {EXPECTED_FILE}" in line
    assert line.endswith(f"those that have some: {QUICK}, {START}")


def test_rows_are_found_by_config_and_overrides():
    weight = "MODEL.MGRE.LOCATION.LOSS_WEIGHT"
    heavy = replace(ONE, overrides=f"{weight} 30.0 TEST.METRIC cosine", mean=50.0)
    rows = [ONE, heavy, replace(ONE, config=START)]
    assert expected_of(rows, QUICK, []) == expected_of(rows, str(Path(QUICK).resolve()), ["SEED", "3"]) == [ONE]
    assert expected_of(rows, QUICK, [weight, "30"]) == [heavy]  # the same value, in another form
    with pytest.raises(ConfigError, match=rf"with these overrides has no expected .*: {QUICK}, {QUICK} {weight} 30.0"):
        expected_of(rows, QUICK, [weight, "3.0"])


def test_a_run_with_other_settings_is_refused(tool, leave, tmp_path, capsys):
    cfg = load_config(START, ["MODEL.MGRE.LOCATION.LOSS_WEIGHT", "3.0", "SEED", "5"])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert call(tool, "--config-file", START, "--results", leave(**STARTED)) == 1
    assert "is of a run with MODEL.MGRE.LOCATION.LOSS_WEIGHT 3.0, and the fig" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text(load_config(START, ["SEED", "5"]).dump())
    assert call(tool, "--config-file", START, "--results", leave(**STARTED)) == 0
    (tmp_path / "config.yaml").write_text("a: [")
    assert call(tool, "--config-file", START, "--results", leave(**STARTED)) == 1
    assert "config.yaml' is damaged" in capsys.readouterr().err


def test_the_shipped_rows_are_of_shipped_configs():
    rows = read_expected()
    assert {row.config for row in rows} == {QUICK, START}
    assert all(expected_of(rows, row.config, row.overrides.split()) for row in rows)
    found = {(row.config, row.metric): (row.mean, row.deviation) for row in rows}
    assert len(found) == len(rows)
    assert found[QUICK, "mAP"] == (54.3, None) and found[START, "mAP"] == (82.6, None)
    # A deviation is of several runs, and of nothing else.
    assert all((row.deviation is None) == (len(row.seeds.split()) == 1) for row in rows)


GOOD = [QUICK, "", "0", "mAP", "54.3", "", "", "a GPU", "torch 2", "abc", ""]


@pytest.mark.parametrize(
    ("cell", "value", "message"),
    [
        ("mean", "high", r"line 2: mean is 'high'; allowed: a number from 0 to 100$"),
        ("mean", "", "mean is ''"),
        ("mean", "543", "mean is '543'"),
        ("deviation", "-1", "deviation is '-1'; allowed: a number from 0 to 100, or nothing for one run"),
        ("deviation", "nan", "deviation is 'nan'"),
        ("metric", "map", "metric is 'map'; allowed: mAP, Rank-1, Rank-5, mINP, IoU/ and a region or mean$"),
        ("floor", "-1", "floor is '-1'; allowed: a number from 0 to 100, or nothing"),
        ("metric", "IoU/mean", "mean is '54.3'; allowed: a number from 0 to 1$"),
        ("config", "", "config is empty"),
        ("seeds", "", "seeds is empty"),
    ],
)
def test_a_wrong_cell(tmp_path, cell, value, message):
    cells = [value if name == cell else good for name, good in zip(COLUMNS, GOOD, strict=True)]
    with pytest.raises(DataError, match=message):
        read_expected(write_rows(tmp_path / "results.csv", COLUMNS, cells))


def test_a_malformed_file(tmp_path):
    path = tmp_path / "results.csv"
    assert read_expected(write_rows(path, COLUMNS, GOOD)) == [replace(ONE, note="")]
    with pytest.raises(DataError, match="line 3 has 10 cells; it needs 11, one for each column"):
        read_expected(write_rows(path, COLUMNS, GOOD, GOOD[:-1]))
    with pytest.raises(DataError, match=r"has the columns config, mAP; it needs config, overrides, seeds, metric"):
        read_expected(write_rows(path, ["config", "mAP"], GOOD))
    path.write_text("")
    with pytest.raises(DataError, match="has the columns none"):
        read_expected(path)
    with pytest.raises(SetupError, match="start the tool in the root of the repository"):
        read_expected(tmp_path / "elsewhere.csv")


def write_rows(path: Path, *rows: list[str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path
