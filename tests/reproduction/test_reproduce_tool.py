"""tools/reproduce.py on a tiny data set, and its command lines."""

import json
import shlex

import pytest
from mgre.engine import main
from mgre.reproduction import jobs as jobs_module
from mgre.reproduction.command import run
from mgre.reproduction.jobs import Job, run_jobs

BASE = "configs/MGRe/reproduce-quick.yml"


@pytest.fixture
def tool(load_tool):
    return load_tool("reproduce")


@pytest.fixture
def plan(small_run, tmp_path):
    """Options of the tool for tiny trainings below ``tmp_path``."""
    pairs = dict(zip(small_run[::2], small_run[1::2], strict=True))
    pairs = {key: value for key, value in pairs.items() if key not in ("OUTPUT_DIR", "SEED")}
    overrides = [word for pair in pairs.items() for word in pair]
    return ["--config-file", BASE, "--output", str(tmp_path / "runs"), *overrides]


def call(tool, *words: str) -> int:
    return main(lambda: run(tool.parse_args(list(words))))


def command_lines(tool, capsys, *words: str) -> list[list[str]]:
    capsys.readouterr()
    assert call(tool, *words, "--dry-run") == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


def test_trains_once_and_picks_up_what_is_there(tool, plan, tmp_path, capsys):
    """Table 7's trainings, run as a scheduler would, by their command lines."""
    lines = command_lines(tool, capsys, "table7", *plan)
    folders = [line[line.index("OUTPUT_DIR") + 1] for line in lines]
    stem = tmp_path / "runs" / "reproduce-quick"
    names = ["baseline", "baseline-joint", "without-joint", "mgre"]
    assert folders == [str(stem / name / "seed0") for name in names]

    # Two of them were run elsewhere.
    for name, precision in (("baseline", 40.0), ("mgre", 60.0)):
        (stem / name / "seed0").mkdir(parents=True)
        (stem / name / "seed0" / "results.json").write_text(json.dumps({"mAP": precision, "Rank-1": 1.0}))
    lines = command_lines(tool, capsys, "table7", *plan)
    assert len(lines) == 2
    assert call(tool, "table7", *plan) == 0
    table = (tmp_path / "runs" / "table7.md").read_text()
    rows = {}
    for line in table.splitlines()[4:]:
        title, _, _, precision = (cell.strip() for cell in line.split("|")[1:5])
        rows[title] = precision
    assert rows["Baseline"] == "40.0" and rows["MGRe"] == "60.0"
    run_here = {"baseline-joint": "Baseline + joint optimisation", "without-joint": "MGRe without joint optimisation"}
    for name, title in run_here.items():
        results = json.loads((stem / name / "seed0" / "results.json").read_text())
        assert rows[title] == f"{results['mAP']:.1f}" and 0 < results["mAP"] <= 100
    assert command_lines(tool, capsys, "table7", *plan) == []

    # The same folder with other settings would mix two experiments.
    assert call(tool, "table7", *plan, "SOLVER.BASE_LR", "0.5") == 1
    assert "was run with SOLVER.BASE_LR" in capsys.readouterr().err


def test_every_training_of_all_experiments_is_one_command_line(tool, capsys, tmp_path):
    lines = command_lines(tool, capsys, "all", "--num-seeds", "2", "--output", str(tmp_path))
    trained = [line for line in lines if "--resume" in line]
    folders = {line[line.index("OUTPUT_DIR") + 1] for line in trained}
    assert len(folders) == len(trained)
    # By hand. Market-1501: 6 of Table 4, 2 of 5, MGN, 2 of 7, 3 dimensions; DukeMTMC: 6; CUHK03 twice and MSMT17: 1.
    assert len(trained) == 2 * (6 + 2 + 1 + 2 + 3 + 6 + 3) + 1  # Figure 6 takes one seed
    occluded = [line for line in lines if "--eval-only" in line]
    assert len(occluded) == 2 * 3
    for line in occluded:
        assert line[line.index("MODEL.WEIGHTS") + 1].endswith("seed0/model_final.pth") or "seed1" in str(line)
        assert line[line.index("TEST.OCCLUSION.ENABLED") + 1] == "True"
    assert sum("tools/select_weights.py" in line for line in lines) == 1


def test_a_backbone_too_narrow_for_mgn_leaves_its_row_empty(tool, plan, tmp_path, capsys):
    assert not any("MGN" in line for line in command_lines(tool, capsys, "table6", *plan))
    stem = tmp_path / "runs" / "reproduce-quick"
    for name, clean, occluded in (("baseline", 50.0, 30.0), ("mgre", 60.0, 55.0)):
        for folder, precision in ((stem / name / "seed0", clean), (stem / name / "seed0" / "occluded", occluded)):
            folder.mkdir(parents=True)
            (folder / "results.json").write_text(json.dumps({"mAP": precision}))
    assert call(tool, "table6", *plan) == 0
    table = (tmp_path / "runs" / "table6.csv").read_text().splitlines()
    assert table[3].startswith('"Baseline, fall"') and table[3].endswith(",-20.0")
    assert table[4].rstrip(",").split(",")[:2] == ["MGN", "CustomReID"] and table[4].rstrip(",").count(",") == 1
    assert table[9].endswith(",-5.0")


@pytest.mark.parametrize("words", [["tabel4"], ["SEED", "1"]])
def test_an_unknown_experiment_is_told(tool, capsys, words):
    assert call(tool, *words) == 1
    assert f"'{words[0]}' is no experiment" in capsys.readouterr().err


def test_a_failed_job_is_told_and_leaves_the_others(tmp_path, monkeypatch):
    script = tmp_path / "job.py"
    script.write_text(
        "import pathlib, sys\nfolder = pathlib.Path(sys.argv[1])\n"
        "if 'bad' in folder.name: sys.exit('error: nothing to see')\n(folder / 'results.json').write_text('{}')\n"
    )
    made = [Job(name, (str(script), str(tmp_path / name)), tmp_path / name) for name in ("bad", "good")]
    failures = run_jobs(made)
    assert len(failures) == 1 and failures[0].startswith("bad: error: nothing to see (status 1")
    assert made[1].finished and not made[0].finished
    assert "nothing to see" in (tmp_path / "bad" / "console.txt").read_text()
    monkeypatch.setattr(jobs_module.subprocess, "run", None)  # nothing is left to run of the good one
    assert run_jobs(made[1:]) == []
