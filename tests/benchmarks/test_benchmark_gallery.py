"""benchmarks/gallery.py at tiny size."""

import csv

import numpy as np
import pytest


@pytest.mark.slow
def test_both_sides_find_the_same(tmp_path, run_script):
    options = ["--sizes", "3000", "--dim", "512", "--repeats", "2", "--output", tmp_path / "out", "--folder", tmp_path]
    done = run_script("benchmarks/gallery.py", *options)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]  # the gallery is gone
    with (tmp_path / "out.csv").open() as file:
        ours, faiss = csv.DictReader(file)
    assert (ours["side"], faiss["side"], ours["same sets of 64"]) == ("gallery", "IndexFlat", "64")
    for row in (ours, faiss):
        assert all(float(row[name]) > 0 for name in ("build_s", "first_ms", "query_ms", "block_ms", "disk_mib"))
    assert float(faiss["disk_mib"]) == pytest.approx(3000 * 512 * 4 / 2**20)


def test_the_vectors_are_made_with_the_spectrum(load_benchmark):
    tool = load_benchmark("gallery")
    shares = np.arange(1, 65.0) ** -1.0
    recipe = tool.Recipe(np.sqrt(shares / shares.sum()).astype(np.float32), 0.3, 0.2, 1.0, 21, 6)
    made = recipe.block(0, 5000)
    assert np.linalg.norm(made, axis=1) == pytest.approx(1, abs=1e-5)
    energies = np.linalg.svd(made, compute_uv=False) ** 2
    assert np.abs(np.cumsum(energies / energies.sum())[:8] - np.cumsum(shares / shares.sum())[:8]).max() < 0.06
    assert (recipe.block(0, 5000) == made).all() and not np.allclose(recipe.block(1, 5000), made)
    assert [len(block) for block in recipe.blocks(2 * tool.BLOCK + 3)] == [tool.BLOCK, tool.BLOCK, 3]
    queries = recipe.queries(5000)
    assert queries.shape == (64, 64) and (queries @ made.T).max(axis=1).mean() > 0.5
