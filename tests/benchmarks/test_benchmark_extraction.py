"""benchmarks/extraction.py at tiny size."""

import pytest
import torch
from mgre.commands.main import main
from mgre.pose.hrnet import HRNetPoseModel

SMALL = ["--num-images", "5", "--batch-size", "2", "--threads", "1", "--input-size", "64x32"]


@pytest.fixture
def tool(load_benchmark):
    return load_benchmark("extraction")


def rows(text):
    """The cells of the printed table, by turn."""
    lines = text[text.index("-----") :].splitlines()[1:]
    return {cells[0]: [float(cell) for cell in cells[1:]] for cells in map(str.split, lines) if cells}


def test_rates_and_ratio_are_as_computed_by_hand(tool):
    found = rows(tool.table([tool.Turn(4.0, 5.0), tool.Turn(2.0, 8.0)], num_images=20))
    assert found == {
        "1": [5, 4, 0.8],
        "2": [10, 2.5, 0.25],
        "all": [round(40 / 6, 3), round(40 / 13, 3), round(6 / 13, 3)],
        "fastest": [10, 4, 0.4],
    }


def test_both_run_the_same_network_on_the_same_batches_by_turns(tool, monkeypatch, capsys):
    batches, clock = [], [0.0]
    heatmaps = HRNetPoseModel.heatmaps

    def spy(model, images):
        batches.append(images.clone())
        clock[0] += len(images)  # a second for each image
        return heatmaps(model, images)

    monkeypatch.setattr(HRNetPoseModel, "heatmaps", spy)
    monkeypatch.setattr(tool.time, "perf_counter", lambda: clock[0])
    assert main(lambda: tool.run(tool.parse_args([*SMALL, "--turns", "2"]))) == 0
    assert [len(batch) for batch in batches] == [2, 2, 1] * 5  # once to warm up
    for earlier, later in zip(batches[:-3], batches[3:], strict=True):
        torch.testing.assert_close(later, earlier, rtol=0, atol=0)
    printed = capsys.readouterr().out
    assert "HRNet-W32, 64 x 32, batches of 2, 1 threads of the CPU" in printed
    assert rows(printed) == {name: [1, 1, 1] for name in ("1", "2", "all", "fastest")}


def test_a_folder_of_crops_with_too_few(tool, tmp_path, write_image, capsys):
    for index in range(3):
        write_image(tmp_path / f"{index}.png", (40, 20))
    assert main(lambda: tool.run(tool.parse_args([*SMALL, "--images", str(tmp_path)]))) == 1
    assert f"--num-images is 5, but '{tmp_path}' has 3" in capsys.readouterr().err
    assert main(lambda: tool.run(tool.parse_args([*SMALL, "--images", str(tmp_path), "--num-images", "3"]))) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--turns", "0"], "'0' is not allowed: give a whole number of 1 or more"),
        (["--input-size", "100x50"], "'100x50' is not allowed: give height x width, multiples of 32"),
        (["--input-size", "large"], "'large' is not allowed"),
        (["--input-size", "0x32"], "'0x32' is not allowed"),
    ],
)
def test_wrong_values_say_what_is_allowed(tool, capsys, words, message):
    with pytest.raises(SystemExit):
        tool.parse_args(words)
    assert message in capsys.readouterr().err
