"""benchmarks/model.py: its table from given times, and one small cell that is really measured."""

import csv
import subprocess
import sys

import pytest


@pytest.fixture
def tool(load_benchmark):
    return load_benchmark("model")


class Replies:
    """Stands in for the process of a checkout: each model's times, one in each turn."""

    def __init__(self, times: dict[str, list[float]]) -> None:
        self.times = times
        self.asked: list[tuple] = []

    def ask(self, verb: str, **arguments) -> dict:
        self.asked.append((verb, arguments.get("model")))
        if verb != "time":
            return {"warm_up_s": 1.5, "graphs": 1} if verb == "build" else {}
        return {"ms": [self.times[arguments["model"]].pop(0)], "host_ms": 7.0, "peak_mib": 100.0}


def test_medians_and_ratios_are_as_computed_by_hand(tool):
    cell = tool.Cell("training", 4, "float32", "eager")
    workers = {
        "": Replies({tool.REFERENCE: [10.0, 30.0, 20.0], "MGRe": [25.0, 15.0, 90.0]}),
        "old": Replies({tool.REFERENCE: [40.0] * 3, "MGRe": [50.0] * 3}),
    }
    rows = list(tool.rows_of(cell, tool.measure(cell, [tool.REFERENCE, "MGRe"], workers, turns=3, calls=1)))
    assert [(r["checkout"], r["model"], r["ms"], r["ratio to ResNet-101"]) for r in rows] == [
        ("", tool.REFERENCE, 20.0, 1.0),
        ("", "MGRe", 25.0, 1.25),
        ("old", tool.REFERENCE, 40.0, 1.0),
        ("old", "MGRe", 50.0, 1.25),
    ]
    assert [r["images/s"] for r in rows] == [200.0, 160.0, 100.0, 80.0]
    assert all((r["host ms"], r["peak MiB"], r["warm-up s"], r["graphs"]) == (7.0, 100.0, 1.5, 1) for r in rows)
    # All models are built first, then timed by turns, then dropped.
    one_turn = [("time", tool.REFERENCE), ("time", "MGRe")]
    assert workers[""].asked == [("build", tool.REFERENCE), ("build", "MGRe"), *one_turn * 3, ("drop", None)]


def test_a_failure_is_a_note_and_what_a_checkout_lacks_is_left_out(tool):
    class Broken(Replies):
        def ask(self, verb: str, **arguments) -> dict:
            if verb == "build" and arguments["model"] == "MGN":
                return {"failed": "OutOfMemoryError: 80 GiB"}
            return super().ask(verb, **arguments)

    class Old:
        def ask(self, verb: str, **arguments) -> dict:
            assert verb != "time"
            return {"skipped": "no MODEL.COMPILE in this checkout"}

    cell = tool.Cell("inference", 1, "float32", "compiled")
    results = tool.measure(cell, ["MGN", "MGRe"], {"": Broken({"MGRe": [2.0]}), "old": Old()}, turns=1, calls=1)
    rows = list(tool.rows_of(cell, results))
    assert [(r["model"], r["ms"], r["note"]) for r in rows] == [
        ("MGN", None, "OutOfMemoryError: 80 GiB"),
        ("MGRe", 2.0, ""),
    ]
    assert rows[1]["ratio to ResNet-101"] is None  # which was not measured


def test_a_model_that_runs_with_a_warning_is_measured(tool):
    class Warned(Replies):
        def ask(self, verb: str, **arguments) -> dict:
            reply = super().ask(verb, **arguments)
            return reply | ({"warned": "torch.compile has failed"} if verb == "build" else {})

    cell = tool.Cell("inference", 1, "float32", "compiled")
    results = tool.measure(cell, ["MGRe"], {"": Warned({"MGRe": [2.0, 2.0]})}, turns=2, calls=1)
    (row,) = tool.rows_of(cell, results)
    assert (row["ms"], row["note"]) == (2.0, "torch.compile has failed")


def test_a_deterministic_cell_has_processes_of_its_own(tool):
    class Restarted(Replies):
        def start_anew(self, **environment: str) -> None:
            self.asked.append(("start", environment.get("CUBLAS_WORKSPACE_CONFIG")))

    worker = Restarted({"MGRe": [1.0]})
    tool.measure(tool.Cell("training", 4, "float32", "deterministic"), ["MGRe"], {"": worker}, turns=1, calls=1)
    assert worker.asked == [("start", ":4096:8"), ("build", "MGRe"), ("time", "MGRe"), ("start", None)]


def test_a_process_that_is_started_anew_has_the_variables(tool, tmp_path, monkeypatch):
    telling = tmp_path / "telling.py"
    telling.write_text("import json, os, sys\nfor _ in sys.stdin: print(json.dumps(os.environ.get('A')), flush=True)\n")
    monkeypatch.setattr(tool, "WORKER", telling)
    worker = tool.Worker(tool.HERE, tool.parse_args(["--device", "cpu"]))
    assert worker.ask("build") is None
    worker.start_anew(A="1")
    assert worker.ask("build") == worker.ask("build") == "1"
    worker.start_anew()
    assert worker.ask("build") is None
    worker.close()


def test_cells_of_the_options(tool):
    words = ["--device", "cpu", "--precisions", "float32", "--modes", "eager", "deterministic", "--batches", "1", "2"]
    cells = tool.cells_of(tool.parse_args(words))
    assert cells == [
        *(tool.Cell("inference", batch, "float32", "eager") for batch in (1, 2)),
        *(tool.Cell("training", 8, "float32", mode) for mode in ("eager", "deterministic")),
    ]
    named = tool.parse_args(
        ["--device", "cpu", "--cells", "training/64/tf32/channels-last compiled", "--", "SEED", "1"]
    )
    assert tool.cells_of(named) == [tool.Cell("training", 64, "tf32", "channels-last compiled")]
    assert named.opts == ["SEED", "1"]
    with pytest.raises(SystemExit):
        tool.parse_args(["--cells", "inference/0/float32/eager"])


@pytest.mark.slow
def test_cells_are_measured_in_a_process_of_their_own(tool, tmp_path):
    """The Baseline and MGRe with a small backbone: a training step, and an inference."""
    words = ["--device", "cpu", "--threads", "1", "--turns", "1", "--output", str(tmp_path / "found")]
    words += ["--models", tool.REFERENCE, "MGRe", "--cells", "training/2/bfloat16/eager", "inference/2/float32/eager"]
    options = {
        # Small, as a CPU without bfloat16 takes ten times as long for it.
        "INPUT.SIZE_TRAIN": "(32, 32)",
        "INPUT.SIZE_TEST": "(32, 32)",
        "MODEL.BACKBONE.DEPTH": "18x",
        "MODEL.BACKBONE.FEAT_DIM": "512",
    }
    printed = tool.run(tool.parse_args([*words, "--", *(word for pair in options.items() for word in pair)]))
    with open(tmp_path / "found.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["model"]) for row in rows] == [
        *(("training", tool.REFERENCE), ("training", "MGRe")),
        *(("inference", tool.REFERENCE), ("inference", "MGRe")),
    ]
    assert all(float(row["ms"]) > 0 and not row["note"] for row in rows)
    assert (tmp_path / "found.md").read_text().strip() in printed and "MODEL.BACKBONE.DEPTH 18x" in printed


def test_a_process_that_dies_fails_its_cell_alone(tool, tmp_path, monkeypatch):
    dying = tmp_path / "dying.py"
    dying.write_text("import os, sys\nsys.stdin.readline()\nos._exit(9)\n")
    monkeypatch.setattr(tool, "WORKER", dying)
    worker = tool.Worker(tool.HERE, tool.parse_args(["--device", "cpu"]))
    for _ in range(2):  # each time in a new process
        assert worker.ask("build", model="MGRe") == {"failed": "the process ended with status 9"}
    worker.close()


def test_help():
    command = [sys.executable, "benchmarks/model.py", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "--against" in shown and "channels-last reduce-overhead" in shown
