"""benchmarks/evaluation.py at tiny size."""

import csv

import numpy as np
import pytest
import torch
from mgre.commands.main import main

TOOL = "benchmarks/evaluation.py"
RERANKING = ("jaccard", "reranked")


@pytest.fixture
def tool(monkeypatch, load_benchmark):
    module = load_benchmark("evaluation")
    # The measurements replace these by timed ones, in processes of their own.
    monkeypatch.setattr(module.reranking, "nearest_neighbours", module.reranking.nearest_neighbours)
    monkeypatch.setattr(module.compute_dist, "index_init_cpu", module.compute_dist.index_init_cpu)
    monkeypatch.setattr(module.neighbours, "find_reduction", module.neighbours.find_reduction)
    return module


@pytest.mark.parametrize("spectrum", ["real", "flat"])
@pytest.mark.parametrize("task", ["metrics", "blocks", "jaccard", "reranked"])
def test_all_sides_find_the_same(tool, task, spectrum):
    ours, full, theirs = (tool.measure(task, side, (20, 90), 16, spectrum) for side in ("ours", "full", "toolbox"))
    assert ours.mean_precision == pytest.approx(theirs.mean_precision, abs=0.01)
    assert ours.mean_precision == pytest.approx(full.mean_precision, abs=0.01)
    # Not trivial; re-ranking nearly is, with so few identities.
    assert 5 < ours.mean_precision < (100.001 if task in RERANKING else 99.9)
    for measured in (ours, full, theirs):
        assert 0 <= measured.search < measured.seconds
        assert (measured.search > 0) == (task in RERANKING)


def test_the_difference_is_one_of_rounding(tool):
    assert 0 <= tool.largest_difference((20, 200), 16) < 1e-6


def test_the_side_without_bounds_computes_all_products(tool, monkeypatch):
    def refuse(*args):
        raise AssertionError("a bound was used")

    monkeypatch.setattr(tool.neighbours, "find_reduction", refuse)
    with pytest.raises(AssertionError, match="a bound"):
        tool.measure("jaccard", "ours", (20, 90), 16)
    tool.measure("jaccard", "full", (20, 90), 16)


def test_the_spectrum_of_real_features(tool):
    shares = tool.make_spectrum(2048, "real")
    assert shares.cumsum(0)[[63, 127, 255, 2047]].tolist() == pytest.approx([0.89, 0.93, 0.96, 1.0], abs=1e-4)
    features = tool.make_images(500, 5000, 512).features
    energies = torch.linalg.svdvals(features.double()).square()
    energies = energies.cumsum(0) / energies.sum()
    expected = tool.make_spectrum(512, "real").cumsum(0)
    # The centres of 238 identities lie in fewer than 512 directions, so the first ones have a little more.
    np.testing.assert_allclose(energies[[63, 127, 255]], expected[[63, 127, 255]], rtol=0, atol=0.04)
    assert tool.make_spectrum(16, "flat").tolist() == pytest.approx([1 / 16] * 16)
    assert float(tool.make_spectrum(16, "real").sum()) == pytest.approx(1)


def test_the_same_images_each_time_with_several_identities_and_cameras(tool):
    first, second = tool.make_images(10, 60, 8), tool.make_images(10, 60, 8)
    assert (first.features == second.features).all()
    np.testing.assert_allclose(first.features.norm(dim=1), 1, atol=1e-6)
    assert len(set(first.pids)) == 2 and len(set(first.camids)) == 6
    assert [len(part) for part in first.labels] == [10, 60, 10, 60]


def test_results_are_written(tool, tmp_path, capsys):
    measured = tool.Measurement(seconds=2.0, search=0.5, memory=100.0, mean_precision=86.0)
    peer = tool.Measurement(seconds=10.0, search=4.0, memory=300.0, mean_precision=86.0)
    full = tool.Measurement(seconds=6.0, search=4.5, memory=90.0, mean_precision=86.0)
    rows = [tool.Row((500, 2000), "jaccard", measured, peer, full), tool.Row((900, 9000), "jaccard", measured, None)]
    tool.write_results(rows, str(tmp_path / "new" / "result"), "a machine")
    with open(tmp_path / "new" / "result.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["queries x gallery"] == "500 x 2000"
    assert float(first["ratio"]) == 5 and float(first["ratio "]) == 4  # 10 / 2, and (10 - 4) / (2 - 0.5)
    assert float(first["ratio  "]) == 3 and first["without bounds, s "] == "4.5"  # 6 / 2
    assert second["toolbox, s"] == second["ratio"] == second["without bounds, s"] == second["ratio  "] == ""
    assert "| 500 x 2000" in (tmp_path / "new" / "result.md").read_text()
    assert (tmp_path / "new" / "result.png").stat().st_size > 1000
    assert "a machine" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["10by20", "0x5", "5", "5x-2"])
def test_a_wrong_size_is_told(tool, capsys, size):
    assert main(lambda: tool.run(tool.parse_args(["--sizes", size]))) == 1
    assert f"--sizes '{size}': give queries x gallery, like 500x2000" in capsys.readouterr().err


@pytest.mark.slow
def test_from_the_command_line(tmp_path, run_script):
    options = ["--sizes", "20x90", "--dim", "16", "--repeats", "1", "--tasks", "metrics"]
    done = run_script(TOOL, *options, "--output", tmp_path / "result", timeout=200)
    assert done.returncode == 0 and "| 20 x 90" in done.stdout, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"result.md", "result.csv", "result.png"}
