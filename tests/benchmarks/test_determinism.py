"""benchmarks/determinism.py with trainings that only write checkpoints."""

import json
import subprocess
import sys

import pytest
import torch

# Leaves what a training leaves: a checkpoint, which may be another in each process, and what a signal makes of it. The
# files are made before, so that no process has to import torch.
TRAINING = """
import pathlib, shutil, signal, sys, time
out, final, interrupted, resumed = *map(pathlib.Path, sys.argv[1:4]), "--resume" in sys.argv
out.mkdir(exist_ok=True)
def stop(number, frame):
    shutil.copy(interrupted, out / "model_interrupted.pth")
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
(out / "last_checkpoint").touch()
if out.name == "cut" and not resumed:
    time.sleep(60)
shutil.copy(final, out / "model_final.pth")
"""


@pytest.fixture
def tool(load_benchmark):
    return load_benchmark("determinism")


@pytest.fixture
def run(tool, tmp_path, monkeypatch):
    """Run it with the weight of each training; the exit status and the report."""

    def call(**weights: float) -> tuple[int, dict]:
        interrupted = tmp_path / "interrupted.pth"
        torch.save({"iteration": 7}, interrupted)

        def start(folder, name, words, *flags):
            assert words[:2] == ["MODEL.DEVICE", "cpu"] and "DETERMINISTIC" in words
            final = tmp_path / f"{name}.pth"
            torch.save({"model": {"weight": torch.tensor([weights[name], float("nan")])}, "epoch": 3}, final)
            return subprocess.Popen([sys.executable, "-c", TRAINING, folder / name, final, interrupted, *flags])

        monkeypatch.setattr(tool, "start_training", start)
        status = tool.run(tool.parse_args(["--device", "cpu", "--output", str(tmp_path / "out")]))
        return status, json.loads((tmp_path / "out" / "determinism.json").read_text())

    return call


def test_the_same_bits(run, tmp_path, capsys):
    status, report = run(straight=0.1, again=0.1, cut=0.1)
    assert (status, report["again"], report["cut"], report["entries"], report["cut_after_step"]) == (0, [], [], 2, 7)
    assert "one that was cut after step 7 and resumed is the same to the bit" in capsys.readouterr().out
    assert not (tmp_path / "out" / "straight").exists()


def test_a_difference_in_the_last_bit_is_seen(run, tmp_path, capsys):
    status, report = run(straight=0.1, again=0.1, cut=0.1 + 1e-8)
    assert (status, report["again"], report["cut"]) == (1, [], ["/model/weight"])
    assert "differs in 1, first /model/weight" in capsys.readouterr().out
    assert (tmp_path / "out" / "cut" / "model_final.pth").exists()


def test_a_training_that_fails_is_named(tool):
    failing = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(RuntimeError, match=r"'again' ended with status 3, not 0: see again.txt"):
        tool.finish(failing, "again")


def test_a_folder_that_exists_is_left_alone(tool, tmp_path):
    with pytest.raises(SystemExit, match="exists: choose a new folder"):
        tool.run(tool.parse_args(["--output", str(tmp_path)]))
