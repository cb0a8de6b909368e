"""benchmarks/gpu_check.py: parts that fail, hang or write nothing are lines of the table."""

import csv
import json
import time
from pathlib import Path

import pytest


@pytest.fixture
def tool(load_benchmark):
    return load_benchmark("gpu_check")


@pytest.fixture
def make_part(tool, tmp_path):
    def make(code: str, *, seconds: int = 30, read=lambda: iter(())):
        return tool.Part("part", ["-c", code], seconds, read)

    return make


def is_running(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_a_part_that_works(tool, make_part, tmp_path):
    part = make_part("print('hello')", read=lambda: iter([tool.Row("part", "what", "1 ms")]))
    rows = tool.run_part(part, tmp_path)
    assert [row.what for row in rows] == ["what", "time"]
    assert (tmp_path / "part.log").read_text() == "hello\n"


def test_a_part_that_fails_is_a_line_with_its_last_words(tool, make_part, tmp_path):
    def read():
        yield tool.Row("part", "before", "1 ms")
        raise FileNotFoundError("results.json")

    rows = tool.run_part(make_part("raise SystemExit('no driver')", read=read), tmp_path)
    assert [row.what for row in rows] == ["before", "FAILED", "time"]
    assert (rows[1].result, rows[1].note) == ("ended with status 1", "no driver")


def test_a_part_that_hangs_ends_with_its_children(tool, make_part, tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('{}', 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    ).format(tmp_path / "pid")
    rows = tool.run_part(make_part(code, seconds=3), tmp_path)
    assert (rows[0].what, rows[0].result) == ("FAILED", "not done after 3 s")
    child, end = int((tmp_path / "pid").read_text()), time.monotonic() + 20
    while is_running(child) and time.monotonic() < end:  # a process that is killed may take a moment to end
        time.sleep(0.01)
    assert not is_running(child)


def test_a_part_without_results_has_failed(tool, make_part, tmp_path):
    def read():
        yield from json.loads((tmp_path / "nothing.json").read_text())

    (failed, _) = tool.run_part(make_part("", read=read), tmp_path)
    assert failed.what == "FAILED" and failed.result.startswith("no results (FileNotFoundError")


def test_the_table_has_all_parts_whatever_fails(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        tool,
        "parts_of",
        lambda args: [
            tool.Part("tests", ["-c", "raise SystemExit(3)"], 30, lambda: iter(())),
            tool.Part("speed", ["-c", ""], 30, lambda: iter([tool.Row("speed", "mAP", "81.8", "| in a cell")])),
        ],
    )
    assert tool.run(tool.parse_args(["--device", "cpu", "--output", str(tmp_path / "out")])) == 1
    with (tmp_path / "out" / "gpu-check.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["part", "what", "result", "note"]
    assert [(row[0], row[1]) for row in rows[1:]] == [
        *(("tests", "FAILED"), ("tests", "time")),
        *(("speed", "mAP"), ("speed", "time")),
    ]
    assert "no GPU" in (tmp_path / "out" / "gpu-check.md").read_text()
    assert tool.run(tool.parse_args(["--device", "cpu", "--output", str(tmp_path / "out"), "--parts", "speed"])) == 0


def test_results_of_an_earlier_check_are_not_read(tool, make_part, tmp_path):
    old, folder = tmp_path / "old.json", tmp_path / "training"
    old.write_text("[]")
    folder.mkdir()
    part = tool.replace(make_part("", read=lambda: iter(json.loads(old.read_text()))), writes=(old, folder))
    assert tool.run_part(part, tmp_path)[0].result.startswith("no results (FileNotFoundError")
    assert not folder.exists()


def test_a_folder_with_other_files_is_refused(tool, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SystemExit, match=r"choose another folder"):
        tool.run(tool.parse_args(["--device", "cpu", "--output", str(tmp_path)]))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_machine_without_a_gpu_is_told(tool, tmp_path):
    with pytest.raises(SystemExit, match=r"sees no CUDA device here; --tiny --device cpu"):
        tool.run(tool.parse_args(["--output", str(tmp_path)]))


def test_all_parts_together_take_less_than_eight_minutes(tool):
    parts = tool.parts_of(tool.parse_args([]))
    assert sum(part.seconds for part in parts) <= 480
    assert tuple(part.name for part in parts) == tool.PARTS
    for part in parts:
        assert part.command[0] == "-m" or Path(part.command[0]).is_file()


def test_a_part_that_is_none_is_told_with_the_names_before_anything_is_made(tool, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        tool.run(
            tool.parse_args(["--device", "cpu", "--output", str(tmp_path / "out"), "--parts", "speed", "nonsense"])
        )
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    names = [part.name for part in tool.parts_of(tool.parse_args([]))]
    assert "nonsense" in line and all(name in line for name in names)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        tool.parse_args(["--help"])
    words = capsys.readouterr().out.split("--parts")[-1].replace(",", " ").split()
    assert set(names) <= set(words)
    for name in names:
        assert tool.parse_args(["--parts", name]).parts == [name]


def test_failed_tests_are_named(tool, tmp_path):
    args = tool.parse_args(["--output", str(tmp_path)])
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite tests="4" failures="1" errors="0" skipped="1"><testcase name="good"/>'
        '<testcase name="bad"><failure/></testcase><testcase name="left"><skipped/></testcase><testcase name="fine"/>'
        "</testsuite></testsuites>"
    )
    (row,) = tool._tests(args).read()
    assert (row.result, row.note) == ("2 passed, 1 failed, 1 skipped", "bad")


def test_market_is_trained_on_where_it_has_key_points(tool, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    args = tool.parse_args(["--output", str(tmp_path / "out")])
    assert tool._training(args).command[0] == "tools/quickstart.py"
    (tmp_path / tool.MARKET).mkdir()
    (tmp_path / tool.MARKET / "keypoints.json").touch()
    command = tool._training(args).command
    assert command[0] == "tools/train_net.py" and "configs/MGRe/market-scratch.yml" in command


def test_re_ranked_metrics_of_features_on_the_device(tool, tmp_path):
    tool.rerank(tmp_path / "found.json", "cpu", tiny=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert "300 queries x 1200 images" in found and 50 < float(found["mAP"].split()[0]) <= 100
