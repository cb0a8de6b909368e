"""The small version of ``make torture``."""

import re

import pytest

pytestmark = pytest.mark.slow


def test_killed_three_times_it_ends_as_the_undisturbed_training(run_script, tmp_path):
    words = ["--kills", "3", "--epochs", "3", "--workers", "0", "--folder", tmp_path]
    finished = run_script("benchmarks/kill_and_resume.py", *words, timeout=600)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert len(re.findall(r"^kill \d: ", finished.stdout, flags=re.MULTILINE)) == 3
    assert "the same to the bit as" in finished.stdout
    assert "differences: none" in finished.stdout
