import numpy as np
import pytest
import torch
from fastreid.utils import compute_dist
from mgre.evaluation import distances
from mgre.evaluation.distances import DistanceRows, cosine_rows, euclidean_rows


def features(num_images: int, seed: int) -> torch.Tensor:
    return 2 * torch.randn(num_images, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("block_size", "tile"), [(1, 4), (40, 11), (1 << 24, 2048)])
def test_both_metrics_equal_their_definitions(monkeypatch, block_size, tile):
    monkeypatch.setattr(distances, "BLOCK_SIZE", block_size)
    monkeypatch.setattr(distances, "MIN_ROWS", 1)
    monkeypatch.setattr(distances, "TILE", tile)
    queries, gallery = features(7, 0), features(11, 1)
    x, y = queries.double().numpy(), gallery.double().numpy()
    cosine = [[1 - a @ b / np.sqrt((a @ a) * (b @ b)) for b in y] for a in x]
    euclidean = [[((a - b) ** 2).sum() for b in y] for a in x]
    np.testing.assert_allclose(np.asarray(cosine_rows(queries, gallery)), cosine, atol=1e-5)
    np.testing.assert_allclose(np.asarray(euclidean_rows(queries, gallery)), euclidean, rtol=1e-5, atol=1e-4)


def test_cosine_equals_the_toolbox():
    queries, gallery = features(7, 0), features(11, 1)
    np.testing.assert_allclose(
        np.asarray(cosine_rows(queries, gallery)),
        compute_dist.compute_cosine_distance(queries, gallery),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("scale", [1e-20, 1e-13, 1e6])
@pytest.mark.parametrize("of", ["queries", "gallery"])
def test_cosine_equals_the_toolbox_at_any_scale(scale, of):
    queries, gallery = features(7, 0), features(11, 1)
    queries, gallery = (queries * scale, gallery) if of == "queries" else (queries, gallery * scale)
    expected = compute_dist.compute_cosine_distance(queries, gallery)
    np.testing.assert_allclose(np.asarray(cosine_rows(queries, gallery)), expected, rtol=0, atol=1e-6)


def test_a_zero_vector_is_at_cosine_distance_1_of_all():
    gallery = features(4, 0)
    gallery[2] = 0
    assert (np.asarray(cosine_rows(torch.zeros(1, 5), gallery)) == 1).all()
    assert (np.asarray(cosine_rows(features(3, 1), gallery))[:, 2] == 1).all()


def test_weighted_sums_are_those_of_the_arrays():
    queries, gallery = features(7, 0), features(11, 1)
    first, second = cosine_rows(queries, gallery), euclidean_rows(queries, gallery)
    np.testing.assert_array_equal(
        np.asarray(0.7 * first + second * 0.3), np.asarray(first) * 0.7 + np.asarray(second) * 0.3
    )


def test_blocks_cover_all_rows_once(monkeypatch):
    monkeypatch.setattr(distances, "BLOCK_SIZE", 25)
    monkeypatch.setattr(distances, "MIN_ROWS", 2)
    array = np.arange(70, dtype=np.float32).reshape(7, 10)
    rows = DistanceRows((7, 10), lambda start, stop: array[start:stop].copy())
    blocks = list(rows.blocks())
    assert [(start, len(block)) for start, block in blocks] == [(0, 2), (2, 2), (4, 2), (6, 1)]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), array)
    np.testing.assert_array_equal(np.asarray(rows, dtype=np.float64), array)


def test_an_empty_gallery():
    assert np.asarray(cosine_rows(features(3, 0), torch.empty(0, 5))).shape == (3, 0)


def test_single_rows_have_the_bits_of_their_blocks(monkeypatch):
    monkeypatch.setattr(distances, "MIN_ROWS", 7)
    monkeypatch.setattr(distances, "BLOCK_SIZE", 1)
    asked = []

    def rows(start, stop):
        asked.append((start, stop))
        return np.arange(start, stop)[:, None] + 0.5 * (stop - start) * np.ones(3)

    found = DistanceRows((20, 3), rows)
    whole = np.asarray(found)
    asked.clear()
    picked = list(found.of([1, 6, 7, 19]))
    assert [number for number, _ in picked] == [1, 6, 7, 19]
    np.testing.assert_array_equal([row for _, row in picked], whole[[1, 6, 7, 19]])
    assert asked == [(0, 7), (7, 14), (14, 20)]
