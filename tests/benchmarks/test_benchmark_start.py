"""benchmarks/start.py without its slow processes."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def tool(load_benchmark):
    return load_benchmark("start")


def test_medians_and_ratios_are_as_computed_by_hand(tool):
    costs = {
        (tool.REFERENCE, ""): [tool.Cost(2.0, 4.0), tool.Cost(10.0, 5.0), tool.Cost(4.0, 4.0)],
        ("import mgre", "here"): [tool.Cost(3.0, 5.0), tool.Cost(10.0, 5.0), tool.Cost(8.0, 6.0)],
    }
    rows = [line.split() for line in tool.table(costs).splitlines()[2:]]
    assert [row[-4:] for row in rows] == [["4.00", "4.00", "1.00", "1.00"], ["8.00", "5.00", "1.50", "1.25"]]


def test_each_checkout_is_measured_in_each_turn(tool, monkeypatch, tmp_path):
    """The other checkout has one tool; the first turn, here 100 times as slow, is not counted."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "train_net.py").touch()
    seen = []

    def measure(words, checkout):
        seen.append((words[-1], checkout))
        return tool.Cost(100.0, 100.0) if seen.count(seen[-1]) == 1 else tool.Cost(1.0, 1.0)

    monkeypatch.setattr(tool, "measure", measure)
    lines = tool.run(2, [tool.HERE, tmp_path]).splitlines()
    assert seen.count(("import mgre", tool.HERE)) == seen.count(("import mgre", tmp_path)) == 3
    assert "100" not in "".join(line.replace(str(tmp_path), "") for line in lines[2:])
    helps = [line for line in lines if "--help" in line]
    assert len(helps) == len(list(Path("tools").glob("*.py"))) + 1
    assert sum(str(tmp_path) in line for line in helps) == 1


def test_time_and_cpu_time_of_a_process(tool):
    cost = tool.measure(["-c", "import time; time.sleep(0.5)"], tool.HERE)
    assert cost.wall >= 0.5
    assert cost.cpu > 0


def test_first_batch_of_forked_workers(tool):
    if "fork" not in tool.multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    cost = tool.measure([tool.__file__, "--first-batch", "fork"], tool.HERE)
    assert cost.wall > 0
    assert cost.cpu > 0


def test_start_of_a_training_without_its_headers(tool, tiny_run):
    words = [tool.__file__, "--first-batch-of", shlex.join(["--config-file", "configs/MGRe/Base-MGRe.yml", *tiny_run])]
    cost = tool.measure(words, tool.HERE)
    assert 0 < cost.wall < 60 and cost.cpu > 0


def test_a_training_is_measured_where_it_is_asked_for(tool):
    assert tool.commands(tool.HERE, "--config-file a.yml").keys() - tool.commands(tool.HERE) == {
        "a training's first batch"
    }


def test_help():
    command = [sys.executable, "benchmarks/start.py", "--help"]
    assert "--beside" in subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
