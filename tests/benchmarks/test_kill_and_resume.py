"""The small version of ``make torture``."""

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_killed_three_times_it_ends_as_the_undisturbed_training(tmp_path):
    command = [sys.executable, "benchmarks/kill_and_resume.py", "--kills", "3", "--epochs", "3", "--workers", "0"]
    finished = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert len(re.findall(r"^kill \d: ", finished.stdout, flags=re.MULTILINE)) == 3
    assert "the same to the bit as" in finished.stdout
    assert "differences: none" in finished.stdout
