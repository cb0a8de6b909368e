"""benchmarks/exported.py without its models."""

import numpy as np
import pytest


@pytest.fixture
def tool(load_benchmark):
    return load_benchmark("exported")


def test_medians_and_ratios_are_as_computed_by_hand(tool):
    seconds = {8: {tool.EAGER: [0.1, 0.4, 0.2], "model.onnx": [0.05, 0.1, 0.2]}}
    rows = [line.split()[-3:] for line in tool.table(seconds).splitlines()[2:]]
    assert rows == [["8", "200.0", "1.00"], ["8", "100.0", "2.00"]]


def test_models_are_measured_by_turns(tool):
    seen = []
    embeds = {name: lambda pixels, name=name: seen.append((name, len(pixels))) for name in "ab"}
    seconds = tool.measure(embeds, np.zeros((3, 3, 4, 2)), 2)
    assert seen == [("a", 3), ("b", 3)] * (tool.WARM_UP + 2)
    assert [len(times) for times in seconds.values()] == [2, 2]
