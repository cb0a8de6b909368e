"""mgre rank and mgre report, as a user calls them, on drawn people; and the commands of their recipe."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest
import torch
from mgre_cli.main import main
from PIL import Image

MODEL = "logs/MGRe/quickstart/model_final.pth"
RECIPE = Path("docs/recipes/look-at-results.md").absolute()


def test_the_commands_of_the_recipe(drawn, capsys, take_down_logs, small_words):
    blocks = re.findall(r"```sh\n(.*?)```", RECIPE.read_text().replace("0101_", "0005_"), re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) == 7
    for name, *words in commands:
        assert name == "mgre"
        if "--config-file" in words:  # the config's own sizes are larger
            words += small_words
        assert main(words) == 0, capsys.readouterr().err
        take_down_logs()
    folder = Path(MODEL).parent
    worst = sorted(path.name for path in (folder / "rank-lists").glob("worst-*.png"))
    assert worst[0].startswith("worst-1-00") and len(worst) == 8  # all queries there are
    assert (folder / "rank-lists/query-1-0005_c1s1_000001_00.png").is_file()
    assert {path.name.split("-")[0] for path in Path("lists").glob("*.png")} <= {"worst", "best", "random", "sheet.png"}
    for report in (folder / "report.html", Path("drawn.html"), Path("logs/MGRe/quickstart/report.html")):
        assert "model_final.pth on SyntheticPedestrians" in report.read_text()
    assert "re-ranked" not in Path("drawn.html").read_text().split("<body>")[1]


def test_both_ways_to_name_the_model_give_the_same_pictures(drawn, small_words):
    queries = ["--query", "0005_c1s1_000001_00.jpg", "--query", "0006_c2s1_000001_00.jpg", "--boxes"]
    assert main(["rank", "--model", MODEL, *queries, "--output", "a"]) == 0
    config = ["--config-file", "configs/MGRe/quickstart.yml", *small_words, "MODEL.WEIGHTS", MODEL]
    assert main(["rank", *config, *queries, "--output", "b"]) == 0
    names = sorted(os.listdir("a"))
    assert names == sorted(os.listdir("b")) and len(names) == 3
    for name in names:
        assert Image.open(Path("a", name)).tobytes() == Image.open(Path("b", name)).tobytes()


def test_a_query_may_be_chosen_twice(drawn, capsys):
    assert main(["rank", "--model", MODEL, "--worst", "99", "--random", "99", "--output", "twice"]) == 0
    names = [path.name for path in Path("twice").glob("*.png") if path.name != "sheet.png"]
    assert len(names) == 8 and all(re.match(r"worst-\d-random-\d-\d{4}_c", name) for name in names)
    assert "sheet.png  all 8 queries" in capsys.readouterr().out


# -- Bad input ------------------------------------------------------------------------------------


@pytest.fixture
def fails_with(drawn, capsys):
    """Run a command that has to fail with one line on stderr; the line."""

    def fail(*words: str) -> str:
        assert main(list(words)) == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if "UserWarning" not in line]
        assert len(lines) == 1 and lines[0].startswith("error: "), lines
        return lines[0]

    return fail


def test_a_query_that_names_nobody(fails_with):
    line = fails_with("rank", "--model", MODEL, "--query", "0005_c1s1_000001_0O.jpg", "--output", "nobody")
    assert "no query of SyntheticPedestrians is '0005_c1s1_000001_0O.jpg' (nearest: 0005_c1s1_000001_00.jpg)" in line
    assert os.listdir("nobody") == []


@pytest.mark.parametrize("command", ["rank", "report"])
def test_a_folder_that_cannot_be_written(fails_with, drawn, command):
    Path("file").write_text("not a folder")
    line = fails_with(command, "--model", MODEL, "--output", "file/lists" + (".html" if command == "report" else ""))
    assert "--output 'file" in line and "cannot be written" in line


def test_a_picture_that_cannot_be_written(fails_with):
    Path("taken/sheet.png").mkdir(parents=True, exist_ok=True)
    line = fails_with("rank", "--model", MODEL, "--worst", "1", "--output", "taken")
    assert "'taken/sheet.png' cannot be written (Is a directory)" in line
    assert [path.name[:7] for path in Path("taken").glob("worst*")] == ["worst-1"]


def test_a_report_whose_file_is_a_folder(fails_with):
    Path("folder.html").mkdir(exist_ok=True)
    assert "the report 'folder.html' cannot be written" in fails_with(
        "report", "--model", MODEL, "--output", "folder.html"
    )


def test_the_metrics_stay_if_the_report_cannot_be_written(drawn, small_words, tmp_path, capsys, take_down_logs):
    (tmp_path / "out/report.html").mkdir(parents=True)
    words = ["--config-file", "configs/MGRe/quickstart.yml", *small_words, "MODEL.WEIGHTS", MODEL]
    assert main(["train", "--eval-only", *words, "TEST.REPORT", "True", "OUTPUT_DIR", str(tmp_path / "out")]) == 1
    assert "report.html' cannot be written (Is a directory)" in capsys.readouterr().err.splitlines()[-1]
    assert "mAP" in json.loads((tmp_path / "out/evaluation.json").read_text())


def test_a_data_set_without_matches(fails_with, make_market_folder, tmp_path):
    folder = make_market_folder(tmp_path / "own", cameras=(1,))
    own = ["DATASETS.TESTS", "('CustomReID',)", "DATASETS.CUSTOM.ROOT", str(folder)]
    assert "no query has a match" in fails_with("rank", "--model", MODEL, *own)


def test_several_data_sets(fails_with):
    line = fails_with("report", "--model", MODEL, "DATASETS.TESTS", "('SyntheticPedestrians', 'CustomReID')")
    assert "DATASETS.TESTS has 2 data sets" in line


def test_a_checkpoint_of_another_architecture(fails_with, tmp_path, small_words):
    torch.save({"model": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    line = fails_with("rank", "--model", str(tmp_path / "other.pth"))
    assert "has no record of its model: name the config" in line
    config = ["--config-file", "configs/MGRe/quickstart.yml", *small_words]
    line = fails_with("report", *config, "MODEL.WEIGHTS", str(tmp_path / "other.pth"))
    assert "is of another architecture" in line


def test_no_model(fails_with, small_words):
    assert "MODEL.WEIGHTS is empty" in fails_with("rank", "--config-file", "configs/MGRe/quickstart.yml", *small_words)


def test_boxes_of_a_model_without_regions(fails_with, small_words):
    config = ["--config-file", "configs/MGRe/quickstart.yml", *small_words, "MODEL.MGRE.STAGES", "()"]
    assert "another architecture" in fails_with("rank", *config, "--boxes", "MODEL.WEIGHTS", MODEL)


@pytest.mark.parametrize("words", [["--worst", "0"], ["--random", "x"], ["--seed", "-1"], []])
def test_options_that_are_wrong(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["rank", *(["--model", MODEL, *words] if words else [])])
    assert caught.value.code == 2
