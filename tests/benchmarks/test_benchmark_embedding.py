"""benchmarks/embedding.py at tiny size."""

import re
import types

import numpy as np
import pytest
from mgre.commands.main import main
from mgre.inference.checkpoint_model import CheckpointModel

SMALL = [
    *("--num-images", "5", "--batch-size", "2", "--threads", "1", "--turns", "2"),
    *("MODEL.BACKBONE.DEPTH", "18x", "INPUT.SIZE_TEST", "(64, 32)", "MODEL.HEADS.EMBEDDING_DIM", "8"),
]


@pytest.fixture
def tool(load_benchmark):
    return load_benchmark("embedding")


def test_both_run_the_same_network_on_the_same_batches_by_turns(tool, monkeypatch, capsys):
    batches, clock = [], [0.0]
    embed = CheckpointModel.embed_pixels

    def spy(model, pixels):
        batches.append(pixels)
        clock[0] += len(pixels)  # a second for each image
        return embed(model, pixels)

    monkeypatch.setattr(CheckpointModel, "embed_pixels", spy)
    monkeypatch.setattr(tool, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    assert main(lambda: tool.run(tool.parse_args(SMALL))) == 0
    assert [len(batch) for batch in batches] == [2, 2, 1] * 5  # once to warm up
    for earlier, later in zip(batches[:-3], batches[3:], strict=True):
        np.testing.assert_array_equal(later, earlier)
    printed = capsys.readouterr().out
    assert "MGRe, 64 x 32, batches of 2, 1 threads of the CPU" in printed
    assert len(re.findall(r"^(?:1|2|all|fastest) +1\.000 +1\.000 +1\.000$", printed, flags=re.MULTILINE)) == 4


def test_a_folder_of_crops_with_too_few(tool, tmp_path, write_image, capsys):
    write_image(tmp_path / "a.png", (40, 20))
    assert main(lambda: tool.run(tool.parse_args([*SMALL, "--images", str(tmp_path)]))) == 1
    assert f"--num-images is 5, but '{tmp_path}' has 1" in capsys.readouterr().err
