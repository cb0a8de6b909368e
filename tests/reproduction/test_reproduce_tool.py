"""tools/reproduce.py on a tiny data set, and its command lines."""

import csv
import json
import os
import shlex
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest
from mgre.commands.main import main
from mgre.commands.reproduce import run
from mgre.config import load_config
from mgre.reproduction import jobs as jobs_module
from mgre.reproduction import reports
from mgre.reproduction.cost import CostRow
from mgre.reproduction.jobs import Job, run_jobs

BASE = "configs/MGRe/reproduce-quick.yml"


@pytest.fixture
def tool(load_tool):
    return load_tool("reproduce")


@pytest.fixture
def plan(small_run, tmp_path):
    """Options of the tool for tiny trainings below ``tmp_path``."""
    pairs = dict(zip(small_run[::2], small_run[1::2], strict=True))
    overrides = [word for key, value in pairs.items() if key not in ("OUTPUT_DIR", "SEED") for word in (key, value)]
    return ["--config-file", BASE, "--output", str(tmp_path / "runs"), *overrides]


@pytest.fixture
def finish(tmp_path):
    """Leave the results of a training, as if it had been run elsewhere; "occluded" those of its evaluation."""

    def leave(name: str, results: dict, *, seed: int = 0, occluded: bool = False) -> Path:
        folder = tmp_path / "runs" / "reproduce-quick" / name / f"seed{seed}"
        path = folder / "occluded" / "evaluation.json" if occluded else folder / "results.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results))
        return folder

    return leave


@pytest.fixture
def one_new_python(monkeypatch, run_script):
    """Let the first job be a new Python, as all jobs are, and those after it have the imports already."""
    call, started = jobs_module._call, []

    def call_quickly(command: list[str], output: IO[str]) -> int:
        started.append(command)
        if len(started) == 1:
            return call(command, output)
        assert command[:4] == [sys.executable, "-m", "mgre_cli", "train"]
        finished = run_script("tools/train_net.py", *command[4:])
        output.write(finished.stdout + finished.stderr)
        return finished.returncode

    monkeypatch.setattr(jobs_module, "_call", call_quickly)


def call(tool, *words: str) -> int:
    return main(lambda: run(tool.parse_args(list(words))))


def command_lines(tool, capsys, *words: str) -> list[list[list[str]]]:
    """By line, the commands that follow each other, by words without the interpreter."""
    capsys.readouterr()
    assert call(tool, *words, "--dry-run") == 0
    lines = [[shlex.split(command) for command in line.split(" && ")] for line in capsys.readouterr().out.splitlines()]
    assert all(command[0] == sys.executable for line in lines for command in line)
    return [[command[1:] for command in line] for line in lines]


def value_of(key: str, command: list[str]) -> str:
    """The value that counts: the last one."""
    return command[len(command) - command[::-1].index(key)]


def read_table(path: Path) -> dict[str, list[str]]:
    """The cells of a Markdown table, by the first one."""
    lines = [line for line in path.read_text().splitlines()[4:] if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.slow
def test_trains_once_and_picks_up_what_is_there(tool, plan, finish, one_new_python, tmp_path, capsys):
    plan += ["MODEL.MGRE.BACKBONE", "build_osnet_backbone", "MODEL.BACKBONE.DEPTH", "x0_25"]
    lines = command_lines(tool, capsys, "table7", *plan)
    stem = tmp_path / "runs" / "reproduce-quick"
    names = ["baseline", "baseline-joint", "without-joint", "cut-gradient", "mgre"]
    assert [value_of("OUTPUT_DIR", line[0]) for line in lines] == [str(stem / name / "seed0") for name in names]

    # Three of them were run elsewhere.
    for name, precision in (("baseline", 40.0), ("cut-gradient", 50.0), ("mgre", 60.0)):
        finish(name, {"mAP": precision, "Rank-1": 1.0})
    assert len(command_lines(tool, capsys, "table7", *plan)) == 2
    assert call(tool, "table7", *plan) == 0
    rows = read_table(tmp_path / "runs" / "table7.md")
    assert rows["Baseline"][2] == "40.0" and rows["MGRe"][2] == "60.0"
    assert rows["MGRe, ReID gradient to the boxes cut"][2] == "50.0"
    run_here = {"baseline-joint": "Baseline + joint optimisation", "without-joint": "MGRe without joint optimisation"}
    for name, title in run_here.items():
        results = json.loads((stem / name / "seed0" / "results.json").read_text())
        assert rows[title][2] == f"{results['mAP']:.1f}" and 0 < results["mAP"] <= 100
    assert command_lines(tool, capsys, "table7", *plan) == []

    # The same folders with other settings would mix two experiments: with an override more, with one less.
    assert call(tool, "table7", *plan, "SOLVER.BASE_LR", "0.5") == 1
    assert "was run with SOLVER.BASE_LR 0.002, not 0.5" in capsys.readouterr().err
    less = [word for key, value in zip(plan[4::2], plan[5::2], strict=True) if key != "SOLVER.IMS_PER_BATCH"
            for word in (key, value)]  # fmt: skip
    assert call(tool, "table7", *plan[:4], *less) == 1
    assert "was run with SOLVER.IMS_PER_BATCH 8, not 32" in capsys.readouterr().err


def test_every_training_of_all_experiments_is_one_command_line(tool, capsys, tmp_path):
    lines = command_lines(tool, capsys, "all", "--num-seeds", "2", "--output", str(tmp_path))
    trained = [line[0] for line in lines]
    assert all("--resume" in command for command in trained)
    assert len({value_of("OUTPUT_DIR", command) for command in trained}) == len(trained)
    # By hand. Market-1501: 6 of Table 4, 2 of 5, 6 of 6, 3 of 7, 3 dimensions; DukeMTMC: 6; CUHK03 twice and MSMT17: 1.
    # The balance has 5 weights with 2 gradients and the Baseline, at the quick size and so in a folder of its own.
    assert len(trained) == 2 * (6 + 2 + 6 + 3 + 3 + 6 + 3 + 11) + 1  # Figure 6 takes one seed
    quick = [c for c in trained if value_of("--config-file", c) == "configs/MGRe/market-quick.yml"]
    assert len(quick) == 2 * 11
    assert all(value_of("OUTPUT_DIR", c).startswith(f"{tmp_path}/market-quick/") for c in quick)
    followed = [line for line in lines if len(line) > 1]
    occluded = [line for line in followed if "--eval-only" in line[1]]
    assert len(occluded) == 2 * 6
    for training, evaluation in occluded:
        assert value_of("MODEL.WEIGHTS", evaluation) == f"{value_of('OUTPUT_DIR', training)}/model_final.pth"
        assert value_of("TEST.OCCLUSION.ENABLED", evaluation) == "True"
        assert value_of("SEED", evaluation) == value_of("SEED", training)
    assert [line[1][:3] for line in followed if line not in occluded] == [["-m", "mgre_cli", "select-weights"]]


def test_each_job_names_what_a_config_may_import(tool, plan, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    part, config = tmp_path / "own_reproduced_part.py", tmp_path / "own.yml"
    part.write_text("")
    config.write_text(f"_BASE_: {Path(BASE).resolve()}\nIMPORTS: ['{part}']\n")
    words = ["figure6", "--config-file", str(config), *plan[2:]]
    assert call(tool, *words, "--dry-run") == 1
    assert "own_reproduced_part.py', which runs code" in capsys.readouterr().err
    ((training, weights),) = command_lines(tool, capsys, *words, "--allow-imports")
    assert value_of("IMPORTS", training) == value_of("IMPORTS", weights) == f"('{part}',)"
    del sys.modules["own_reproduced_part"]


def test_validation_identities_are_of_the_set_that_was_asked_for(tool, plan, capsys):
    ((training, weights),) = command_lines(tool, capsys, "figure6", *plan)
    for command in (training, weights):
        assert value_of("DATASETS.NAMES", command) == value_of("DATASETS.TESTS", command) == "('CustomReIDVal',)"


@pytest.mark.parametrize(
    ("experiment", "key"),
    [("table4", "MODEL.MGRE.STAGES"), ("figure5", "MODEL.HEADS.EMBEDDING_DIM"), ("table2", "SEED")],
)
def test_what_an_experiment_is_about_cannot_be_overridden(tool, plan, capsys, experiment, key):
    assert call(tool, experiment, *plan, key, "1") == 1
    assert f"{key} is what" in capsys.readouterr().err


def test_a_backbone_too_narrow_for_mgn_leaves_its_row_empty(tool, plan, finish, tmp_path, capsys):
    assert not any("MGN" in command for line in command_lines(tool, capsys, "table6", *plan) for command in line)
    figures = {
        *{("baseline-erasing", 40.0, 30.0), ("baseline-no-erasing", 50.0, 30.0)},
        *{("mgre-erasing", 50.0, 45.0), ("mgre-no-erasing", 60.0, 57.0)},
    }
    for name, clean, occluded in figures:
        finish(name, {"mAP": clean})
        finish(name, {"mAP": occluded}, occluded=True)
    assert call(tool, "table6", *plan) == 0
    rows = read_table(tmp_path / "runs" / "table6.md")
    assert len(rows) == 6 * 4
    relative = "fall in % of the clean figure"
    assert rows["Baseline, no random erasing, fall"] == ["CustomReID", "1", "-20.0"]
    assert rows[f"Baseline, no random erasing, {relative}"] == ["CustomReID", "1", "-40.0"]
    assert rows[f"Baseline, random erasing, {relative}"] == ["CustomReID", "1", "-25.0"]
    assert rows["MGRe, random erasing, fall"] == ["CustomReID", "1", "-5.0"]
    assert rows[f"MGRe, random erasing, {relative}"] == ["CustomReID", "1", "-10.0"]
    assert rows[f"MGRe, no random erasing, {relative}"] == ["CustomReID", "1", "-5.0"]
    for title in ("MGN, random erasing", f"MGN, no random erasing, {relative}"):
        assert rows[title] == ["CustomReID", "", ""]


def test_table_6_has_the_papers_falls(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, "_call", lambda command, output: 1)  # nothing is trained
    assert call(tool, "table6", "--output", str(tmp_path)) == 1
    lines = (tmp_path / "table6.csv").read_text().splitlines()
    header, *cells = csv.reader(lines)
    assert header == ["", "data set", "mAP, the paper's", "Rank-1, the paper's"]
    rows = {row[0]: row[2:] for row in cells}
    # By hand: 85.9 - 90.1 and 94.0 - 96.2, and by 90.1 and 96.2; 77.8 - 86.6 and 90.8 - 94.8, by 86.6 and 94.8.
    assert rows["MGRe, random erasing, fall"] == ["-4.2", "-2.2"]
    assert rows["MGRe, random erasing, fall in % of the clean figure"] == ["-4.661", "-2.287"]
    assert rows["MGN, random erasing, fall in % of the clean figure"] == ["-10.162", "-4.219"]
    assert rows["MGRe, no random erasing"] == ["", ""]


def test_each_test_set_has_its_row(tool, plan, finish, tmp_path):
    sets = ["DATASETS.TESTS", "('CustomReID', 'SyntheticPedestrians')"]
    finish("mgre", {"CustomReID": {"mAP": 61.0}, "SyntheticPedestrians": {"mAP": 71.0}})
    assert call(tool, "table2", *plan, *sets) == 0
    lines = (tmp_path / "runs" / "table2.csv").read_text().splitlines()
    assert lines[1:] == ["MGRe,CustomReID,1,61.0", "MGRe,SyntheticPedestrians,1,71.0"]


def test_figure_5_is_a_table_and_a_plot(tool, plan, finish, tmp_path):
    for name, precision in (("dimension512", 50.0), ("dimension1024", 55.0), ("mgre", 60.0), ("dimension4096", 58.0)):
        for seed in range(2):
            finish(name, {"mAP": precision + seed, "Rank-1": 80.0}, seed=seed)
    assert call(tool, "figure5", *plan, "--num-seeds", "2") == 0
    rows = read_table(tmp_path / "runs" / "figure5.md")
    assert list(rows) == ["512", "1024", "2048", "4096"]
    assert rows["2048"] == ["CustomReID", "2", "60.5 ± 0.7", "80.0 ± 0.0"]
    assert (tmp_path / "runs" / "figure5.png").stat().st_size > 1000


def test_the_balance_is_a_table_a_choice_and_a_plot(tool, plan, finish, tmp_path):
    # By hand: the mAP is highest at x 10 with gradient 1, whose IoU is that of gradient 0 at each weight.
    for weight, precision in ((1, 50.0), (3, 52.0), (10, 54.0), (30, 53.0), (100, 51.0)):
        for gradient in (0, 1):
            overlap = {"IoU/head": 0.5, "IoU/mean": 0.7 if gradient == 0 or weight >= 10 else 0.5}
            for seed in range(2):
                figures = {"mAP": precision + gradient + seed, "Rank-1": 80.0, "Rank-5": 90.0, "mINP": 20.0}
                finish(f"weight{weight}-gradient{gradient}", figures | overlap, seed=seed)
    for seed in range(2):
        finish("baseline", {"mAP": 40.0, "Rank-1": 70.0, "Rank-5": 80.0, "mINP": 10.0}, seed=seed)
    assert call(tool, "balance", *plan, "--num-seeds", "2") == 0
    path = tmp_path / "runs" / "balance.md"
    header = [cell.strip() for cell in path.read_text().splitlines()[2].split("|")[1:-1]]
    assert header == ["", "data set", "seeds", "mAP, %", "Rank-1, %", "mINP, %", "IoU/head", "IoU/mean"]
    rows = read_table(path)
    assert rows["Baseline"] == ["CustomReID", "2", "40.0 ± 0.0", "70.0 ± 0.0", "10.0 ± 0.0", "", ""]
    assert rows["MGRe, location loss x 3, ReID gradient 1"] == [
        *("CustomReID", "2", "53.5 ± 0.7", "80.0 ± 0.0", "20.0 ± 0.0", "0.50 ± 0.00", "0.50 ± 0.00"),
    ]
    choice = path.read_text().splitlines()[-1]
    assert choice.startswith("CustomReID, reproduce-quick: location loss x 10 with ReID gradient 1. ")
    assert (tmp_path / "runs" / "balance.png").stat().st_size > 1000
    assert len((tmp_path / "runs" / "balance.csv").read_text().splitlines()) == 1 + 11


@pytest.mark.parametrize("key", ["MODEL.MGRE.LOCATION.LOSS_WEIGHT", "MODEL.MGRE.LOCATION.REID_GRADIENT"])
def test_the_balance_cannot_be_overridden(tool, plan, capsys, key):
    assert call(tool, "balance", *plan, key, "1.0") == 1
    assert f"{key} is what 'MGRe, location loss x 1, ReID gradient 0' sets itself" in capsys.readouterr().err


def test_figure_4_shows_the_trainings_last_checkpoints(tool, plan, finish, tmp_path, monkeypatch, capsys):
    asked = {}

    def save(cfgs, folder):
        asked.update({title: cfg.MODEL.WEIGHTS for title, cfg in cfgs.items()})
        return [folder / "figure4_1.png"]

    monkeypatch.setattr(reports, "save_figure4", save)
    folders = {"MGRe": finish("mgre", {"mAP": 1.0}), "Baseline": finish("baseline", {"mAP": 1.0})}
    assert call(tool, "figure4", *plan) == 0
    assert asked == {title: str(folder / "model_final.pth") for title, folder in folders.items()}
    assert str(tmp_path / "runs" / "figure4" / "figure4_1.png") in capsys.readouterr().out


def test_table_8_is_measured_at_once(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        reports, "measure_costs", lambda *args, **kwargs: [CostRow("MGRe", 5.8, 36.0, 0.9, 1.0, 7.89, 1.79, 1.69)]
    )
    assert call(tool, "table8", "--output", str(tmp_path), "MODEL.DEVICE", "cpu") == 0
    assert "| MGRe" in (tmp_path / "table8.md").read_text()
    assert command_lines(tool, capsys, "table8", "--output", str(tmp_path)) == []


@pytest.mark.parametrize("words", [["tabel4"], ["SEED", "1"]])
def test_an_unknown_experiment_is_told(tool, capsys, words):
    assert call(tool, *words) == 1
    assert f"'{words[0]}' is no experiment" in capsys.readouterr().err


def test_no_seeds_are_told(tool, capsys):
    assert call(tool, "figure4", "--num-seeds", "0") == 1
    assert "--num-seeds is 0; allowed: 1 or more" in capsys.readouterr().err


def test_a_failed_job_is_told_and_leaves_the_others(tmp_path, monkeypatch):
    script = tmp_path / "job.py"
    script.write_text(
        "import pathlib, sys\nfolder = pathlib.Path(sys.argv[1])\n"
        "if 'bad' in folder.name: sys.exit('error: nothing to see')\n(folder / 'results.json').write_text('{}')\n"
    )
    bad, good = (Job(name, (str(script), str(tmp_path / name)), tmp_path / name) for name in ("bad", "good"))
    follower = Job("follower", (str(script), str(tmp_path / "f")), tmp_path / "f", after=bad)
    failures = run_jobs([bad, follower, good])
    assert len(failures) == 1 and failures[0].startswith("bad: error: nothing to see (status 1")
    assert good.finished and not bad.finished and not (tmp_path / "f").exists()
    assert "nothing to see" in (tmp_path / "bad" / "console.txt").read_text()
    monkeypatch.setattr(jobs_module, "_call", None)  # nothing is left to run of the good one
    assert run_jobs([good]) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_job_save_its_state(run_script, tmp_path, number):
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import os, pathlib, signal, sys, time\nfolder = pathlib.Path(sys.argv[1])\n"
        "def save(number, frame):\n"
        "    time.sleep(1.5)\n    (folder / 'saved').write_text(str(number))\n    sys.exit(9)\n"
        "for n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, save)\n"
        "(folder / 'unnamed').write_text(str(os.getppid()))\n"
        "(folder / 'unnamed').rename(folder / 'started')\ntime.sleep(60)\n"
    )
    driver = tmp_path / "driver.py"
    driver.write_text(
        "from pathlib import Path; from mgre.reproduction.jobs import Job, run_jobs;"
        f"run_jobs([Job('slow', ({str(slow)!r}, {str(tmp_path)!r}), Path({str(tmp_path)!r}))])"
    )
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run_script, driver)
        for _ in range(600):
            if (tmp_path / "started").exists():
                break
            time.sleep(0.1)
        os.kill(int((tmp_path / "started").read_text()), number)
        finished = running.result(timeout=60)
    assert (tmp_path / "saved").read_text() == str(int(number))
    assert finished.returncode == 128 + number and "the same command goes on" in finished.stderr


def test_a_plan_needs_no_gpu(tool, capsys, tmp_path):
    with pytest.raises(Exception, match="sees no CUDA device"):
        load_config("configs/MGRe/market.yml")
    assert len(command_lines(tool, capsys, "table2", "--output", str(tmp_path))) == 2


def test_what_an_earlier_run_left_damaged_is_named(tool, plan, finish, capsys):
    folder = finish("mgre", {"mAP": 60.0})
    (folder / "results.json").write_text('{"mAP": 6')
    assert call(tool, "table2", *plan) == 1
    assert f"'{folder}/results.json' is damaged: remove it" in capsys.readouterr().err
    finish("mgre", {"mAP": 60.0})
    (folder / "config.yaml").write_text("SEED: [")
    assert call(tool, "table2", *plan) == 1
    assert f"config.yaml' is damaged: remove '{folder}', or choose another --output" in capsys.readouterr().err
