"""tools/quickstart.py, with a model and a data set that take a second."""

import json
import re

import pytest
from fastreid.engine import default_argument_parser
from mgre.commands import quickstart
from mgre.commands.main import main
from mgre.engine import run as engine
from PIL import Image

CONFIG = "configs/MGRe/quickstart.yml"


def test_its_tables_are_of_the_model_that_it_leaves(toy_run, tmp_path, load_tool, take_down_logs, capsys):
    args = load_tool("quickstart").parse_args(toy_run)
    assert main(lambda: quickstart.run(args)) == 0
    printed = capsys.readouterr().out
    out = tmp_path / "out"
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.strip()}
    plain = json.loads((out / "results.json").read_text())
    assert rows["plain"] == [f"{plain[metric]:.1f}" for metric in ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP")]
    overlaps = {name.removeprefix("IoU/"): value for name, value in plain.items() if name.startswith("IoU/")}
    assert len(overlaps) == 8 and all(rows[region] == [f"{iou:.2f}"] for region, iou in overlaps.items())
    assert Image.open(out / "regions.png").width > 0
    assert re.search(rf"^checkpoint +{re.escape(str(out))}/model_final\.pth$", printed, flags=re.MULTILINE)

    # The checkpoint, evaluated by the other command, gives the same figures, with re-ranking and without.
    weights = ["MODEL.WEIGHTS", str(out / "model_final.pth")]
    for row, enabled in (("plain", "False"), ("re-ranked", "True")):
        take_down_logs()
        words = ["--config-file", CONFIG, "--eval-only", *toy_run, *weights, "TEST.RERANK.ENABLED", enabled]
        found = engine.run(default_argument_parser().parse_args(words))
        assert rows[row][:2] == [f"{found[metric]:.1f}" for metric in ("mAP", "Rank-1")]


@pytest.mark.parametrize("words", [["SEED"], ["SEEDS", "1"]])
def test_wrong_overrides_are_one_line(load_tool, take_down_logs, capsys, words):
    args = load_tool("quickstart").parse_args(words)
    assert main(lambda: quickstart.run(args)) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and words[0] in line
