"""The small version of the gallery's part of ``make torture``."""

import re

import numpy as np
import pytest


@pytest.mark.slow
def test_killed_twice_nothing_is_lost(run_script):
    finished = run_script("benchmarks/index_kills.py", "--kills", "2", timeout=600)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert len(re.findall(r"^kill \d: .* all well$", finished.stdout, flags=re.MULTILINE)) == 2
    assert finished.stdout.endswith("faults: none\n")


def test_what_is_lost_would_be_seen(load_benchmark, tmp_path):
    tool = load_benchmark("index_kills")
    index, log = tmp_path / "index", tmp_path / "log.txt"
    log.write_text(
        '{"action": "add", "first": 5, "count": 2, "ids": null}\n{"action": "done", "ids": ["1", "2"]}\n'
        '{"action": "add", "first": 7, "count": 2, "ids": ["a 7", "a 8"]}\n{"action": "d'
    )
    with tool.Gallery.create(str(index), dimension=tool.DIM, fingerprint=tool.FINGERPRINT) as gallery:
        gallery.add(tool.vectors(5, 1), fingerprint=tool.FINGERPRINT)
        gallery.add(tool.vectors(9, 1), fingerprint=tool.FINGERPRINT, ids=["a 7"])
    assert tool.verify(index, log, tool.Known()) == [
        "half of a change: 1 of 2 entries",
        "1 entries lost, 0 that nobody added",
        "vectors have changed",
    ]


def test_patterns_are_found_at_any_offset(load_benchmark):
    count_present = load_benchmark("index_kills").count_present
    rng = np.random.default_rng(0)
    content = rng.bytes(1003)
    patterns = [content[start : start + 16] for start in (*range(300, 309), 0, 1003 - 16)]
    others = [pattern[:8] + rng.bytes(8) for pattern in patterns]  # they only begin as something that is there
    assert count_present([*patterns, *others, rng.bytes(16)], content) == 11
    assert count_present(patterns, b"") == count_present([], content) == 0
