import numpy as np
import pytest
from fastreid.evaluation import rank
from mgre.compat.patching import Overlay
from mgre.errors import DataError
from mgre.evaluation import distances as distances_module
from mgre.evaluation import ranking
from mgre.evaluation.distances import DistanceRows
from mgre.evaluation.ranking import eval_market1501, noting

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


def adversarial_problem(seed: int):
    """What makes ranking hard: ties, zeros of both signs, infinities, junk, queries without a match, few images."""
    rng = np.random.default_rng(seed)
    num_queries, num_gallery = rng.integers(1, 13), rng.integers(1, 60)
    shape = num_queries, num_gallery
    num_levels = rng.choice([1, 2, 5, 10**6])
    distances = (rng.integers(0, num_levels, shape) - rng.integers(0, 2) * num_levels // 2) / num_levels
    distances[rng.random(shape) < rng.choice([0, 0.2])] = -0.0
    distances[rng.random(shape) < rng.choice([0, 0.2])] = np.inf
    distances = distances.astype(rng.choice([np.float32, np.float64]))
    if rng.random() < 0.3:  # not contiguous
        distances = np.asfortranarray(distances) if rng.random() < 0.5 else np.repeat(distances, 2, axis=1)[:, ::2]
    pids, camids = rng.integers(-50, 10**6, rng.integers(1, 7)), rng.integers(-3, 9, rng.integers(1, 4))
    return (
        distances,
        rng.choice(pids, num_queries),
        rng.choice(pids, num_gallery),
        rng.choice(camids, num_queries),
        rng.choice(camids, num_gallery),
    )


def fewest_kept(q_pids, g_pids, q_camids, g_camids) -> int:
    """Gallery images left to rank, of the query with a match that has the fewest; 0 if no query has a match."""
    same = q_pids[:, None] == g_pids
    kept = ~(same & (q_camids[:, None] == g_camids))
    return min(kept.sum(axis=1)[(same & kept).any(axis=1)], default=0)


def test_equals_toolbox_on_adversarial_problems(monkeypatch):
    stable_argsort(monkeypatch)
    num_compared = 0
    for seed in range(400):
        distances, *labels = adversarial_problem(seed)
        max_rank = min(50, fewest_kept(*labels))  # with more the toolbox fails
        if not max_rank:
            with pytest.raises(DataError, match="no query has a match"):
                eval_market1501(distances, *labels)
            continue
        num_compared += 1
        expected = toolbox_eval_market1501(distances, *labels, max_rank)
        for cached_size in (1, 100, 1 << 20):
            monkeypatch.setattr(ranking, "CACHED_SIZE", cached_size)
            assert_same(eval_market1501(distances, *labels, max_rank), expected)
    assert num_compared > 200


def test_the_curve_beyond_the_images_that_are_left():
    # Its definition for every query: the share of queries with a match whose first match is at that rank or before.
    for seed in range(50):
        distances, *labels = adversarial_problem(seed)
        if not fewest_kept(*labels):
            continue
        long, short = (eval_market1501(distances, *labels, max_rank=n)[0] for n in (100, fewest_kept(*labels)))
        assert (long[: short.size] == short).all()
        assert (np.diff(long) >= 0).all() and long[-1] == 1


def test_rows_that_come_in_blocks_give_the_same(monkeypatch):
    array, *labels = random_problem(1)
    rows = DistanceRows(array.shape, lambda start, stop: array[start:stop])
    expected = eval_market1501(array, *labels)
    monkeypatch.setattr(distances_module, "BLOCK_SIZE", 900)
    monkeypatch.setattr(distances_module, "MIN_ROWS", 3)
    monkeypatch.setattr(ranking, "CACHED_SIZE", 500)
    found = eval_market1501(rows, *labels)
    assert found[0].tolist() == expected[0].tolist() and found[1:] == expected[1:]


def test_queries_without_a_match_are_counted_and_said(caplog):
    labels = np.array([0, 1, 2]), np.array([0, 0, 1]), np.array([0, 0, 0]), np.array([1, 1, 0])
    with caplog.at_level("INFO"):
        _, precisions, _ = eval_market1501(np.zeros((3, 3)), *labels)
    assert len(precisions) == 1
    assert "2 of 3 queries have no match in the gallery" in caplog.text


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


# -- Rank lists ------------------------------------------------------------------------------------


def note(problem):
    with noting() as notes:
        figures = eval_market1501(*problem, 50)
    (ranked,) = notes
    return ranked, figures


@pytest.mark.parametrize("levels", [2, 10, 10**6])
@pytest.mark.parametrize("seed", range(3))
def test_lists_are_those_that_were_counted(seed, levels):
    """The figures of the lists, counted one image after the other, are the evaluation's; with few levels there are
    many ties."""
    distances, *labels = random_problem(seed)
    problem = ((distances % levels).astype(np.float32), *labels)
    ranked, (cmc, precisions, penalties) = note(problem)
    q_pids, g_pids, q_camids, g_camids = labels
    found = []
    for query, images, at in ranked.sorted_galleries(range(len(q_pids))):
        own = [i for i in range(200) if g_pids[i] == q_pids[query] and g_camids[i] == q_camids[query]]
        left = [i for i in range(200) if i not in own]
        assert images.tolist() == sorted(left, key=lambda image: (problem[0][query, image], image))
        np.testing.assert_array_equal(at, problem[0][query, images])
        ranks = [rank for rank, image in enumerate(images, start=1) if g_pids[image] == q_pids[query]]
        if ranks:
            found.append((ranks[0], np.mean([i / r for i, r in enumerate(ranks, start=1)]), len(ranks) / ranks[-1]))
        assert (ranked.figures.first_ranks[query] or None) == (ranks[0] if ranks else None)
    firsts, expected_precisions, expected_penalties = zip(*found, strict=True)
    np.testing.assert_allclose(cmc, [np.mean(np.array(firsts) <= rank) for rank in range(1, 51)], rtol=1e-6)
    np.testing.assert_allclose(precisions, expected_precisions)
    np.testing.assert_allclose(penalties, expected_penalties)


def test_nothing_is_noted_outside():
    problem = random_problem(0)
    with noting() as notes:
        pass
    eval_market1501(*problem)
    assert notes == []


def test_queries_without_a_match_have_no_figures():
    ranked, _ = note((np.array([[0.1, 0.2], [0.1, 0.2]]), *map(np.array, ([1, 5], [2, 1], [0, 0], [1, 1]))))
    assert ranked.figures.counted.tolist() == [True, False]
    assert ranked.figures.first_ranks.tolist() == [2, 0]
    assert ranked.figures.precisions[0] == 0.5 and np.isnan(ranked.figures.precisions[1])
    assert ranked.figures.cmc(2).tolist() == [0.0, 1.0]
