import numpy as np
import pytest
from fastreid.evaluation import rank
from mgre.compat.patching import Overlay
from mgre.errors import DataError
from mgre.evaluation.ranking import eval_market1501

# The toolbox's own function, which the package replaces by the one under test.
toolbox_eval_market1501 = rank.eval_market1501.__wrapped__


def random_problem(seed: int, num_queries: int = 30, num_gallery: int = 200, num_pids: int = 12, num_camids: int = 4):
    rng = np.random.default_rng(seed)
    # Distances that are all different, so that no order is left to chance.
    distances = rng.permutation(num_queries * num_gallery).reshape(num_queries, num_gallery).astype(np.float32)
    labels = (
        rng.integers(0, num_pids, num_queries),
        rng.integers(0, num_pids, num_gallery),
        rng.integers(0, num_camids, num_queries),
        rng.integers(0, num_camids, num_gallery),
    )
    return distances, *labels


def stable_argsort(monkeypatch):
    stable = Overlay(np, argsort=lambda a, axis: np.argsort(a, axis=axis, kind="stable"))
    monkeypatch.setattr(rank, "np", stable)


def assert_same(ours, theirs):
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[0].dtype == theirs[0].dtype == np.float32
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours[2], theirs[2], rtol=0, atol=1e-12)


def test_hand_counted():
    # Query 0 (identity 1, camera 0): gallery 1 is of its own camera and left out, so its matches, gallery 2 and 4, come
    # 2nd and 3rd. Query 1 (identity 2, camera 0): its only match comes 1st. Query 2: nobody of identity 9, not counted.
    distances = np.array([[0.1, 0.0, 0.2, 0.9, 0.3], [0.5, 0.4, 0.3, 0.2, 0.9], [0.1, 0.2, 0.3, 0.4, 0.5]])
    cmc, precisions, penalties = eval_market1501(
        distances,
        np.array([1, 2, 9]),
        np.array([3, 1, 1, 2, 1]),
        np.array([0, 0, 0]),
        np.array([1, 0, 1, 1, 2]),
        max_rank=3,
    )
    assert cmc.tolist() == [0.5, 1.0, 1.0]
    assert precisions == pytest.approx([(1 / 2 + 2 / 3) / 2, 1.0])
    assert penalties == pytest.approx([2 / 3, 1.0])


@pytest.mark.parametrize("seed", range(5))
def test_equals_toolbox_on_distinct_distances(seed):
    problem = random_problem(seed)
    assert_same(eval_market1501(*problem, 50), toolbox_eval_market1501(*problem, 50))


@pytest.mark.parametrize("num_values", [1, 3, 20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_follow_gallery_order(monkeypatch, num_values, dtype):
    distances, *labels = random_problem(num_values)
    distances = (distances % num_values).astype(dtype)
    stable_argsort(monkeypatch)
    assert_same(eval_market1501(distances, *labels, 50), toolbox_eval_market1501(distances, *labels, 50))


def test_infinite_distances_come_last(monkeypatch):
    distances, *labels = random_problem(3)
    distances[distances > 3000] = np.inf
    stable_argsort(monkeypatch)
    assert_same(eval_market1501(distances, *labels, 50), toolbox_eval_market1501(distances, *labels, 50))


def test_gallery_smaller_than_max_rank():
    # No gallery image shares a query's camera, so the toolbox keeps rows of one length and can be compared.
    distances, q_pids, g_pids, q_camids, g_camids = random_problem(0, num_gallery=7, num_pids=3)
    problem = distances, q_pids, g_pids, q_camids, g_camids + 10
    cmc, precisions, penalties = eval_market1501(*problem, 50)
    expected = toolbox_eval_market1501(*problem, 50)
    assert cmc.shape == (50,)
    assert_same((cmc[:7], precisions, penalties), expected)
    assert (cmc[7:] == expected[0][-1]).all()


def test_rows_of_different_length():
    # Query 0 keeps one gallery image, its match; query 1 keeps three, its match last.
    distances = np.array([[0.0, 0.1, 0.2], [0.2, 0.1, 0.3]])
    labels = np.array([0, 1]), np.array([0, 0, 0]), np.array([0, 0]), np.array([0, 0, 1])
    cmc, precisions, _ = eval_market1501(distances[:1], labels[0][:1], labels[1], labels[2][:1], labels[3], max_rank=4)
    assert cmc.tolist() == [1.0] * 4
    assert precisions == [1.0]

    labels = np.array([0, 1]), np.array([0, 0, 1]), np.array([0, 5]), np.array([0, 1, 1])
    cmc, precisions, penalties = eval_market1501(distances, *labels, max_rank=4)
    assert cmc.tolist() == [0.5, 0.5, 1.0, 1.0]
    assert precisions == pytest.approx([1.0, 1 / 3])
    assert penalties == pytest.approx([1.0, 1 / 3])


def test_nan_distances():
    distances, *labels = random_problem(0)
    distances[4, 17] = np.nan
    with pytest.raises(DataError, match="query 4"):
        eval_market1501(distances, *labels)


@pytest.mark.parametrize("num_gallery", [0, 3])
def test_no_query_has_a_match(num_gallery):
    gallery = np.full(num_gallery, 2)
    with pytest.raises(DataError, match="no query has a match"):
        eval_market1501(np.zeros((2, num_gallery)), np.array([0, 1]), gallery, np.array([0, 0]), gallery)
